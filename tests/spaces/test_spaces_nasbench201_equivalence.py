from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from narformer_pyg.datasets import FakeNAS
from narformer_pyg.spaces import NASBench201Cell, equivalent_indices
from narformer_pyg.spaces.nasbench201 import CELL_EDGES, NUM_CELLS
from narformer_pyg.spaces.nasbench201_equivalence import cell_indices, function_indices


def outputs() -> np.ndarray:
    """Computes every cell on one input, its convolutions as maps of zero to zero."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(3, 3)) for name in ("nor_conv_1x1", "nor_conv_3x3", "pool")}
    x = rng.normal(size=3)
    out = []
    for i in range(NUM_CELLS):
        maps = [x]
        for target in range(1, 4):
            value = np.zeros(3)
            edges = zip(CELL_EDGES, NASBench201Cell.from_index(i).operations, strict=True)
            for (source, end), name in edges:
                if end != target or name == "none":
                    continue
                if name == "skip_connect":
                    value = value + maps[source]
                elif name == "avg_pool_3x3":
                    value = value + weights["pool"] @ maps[source]
                else:
                    value = value + np.tanh(weights[name] @ maps[source])
            maps.append(value)
        out.append(maps[-1])
    return np.array(out)


def test_classes_are_those_of_the_outputs() -> None:
    _, computed = np.unique(outputs().round(9), axis=0, return_inverse=True)
    functions = function_indices().numpy()
    pairs = np.unique(np.stack([computed.ravel(), functions]), axis=1)
    # One class of outputs for each class of functions, and the other way round.
    assert pairs.shape[1] == len(np.unique(functions)) == computed.max() + 1 == 4660


def test_finer_than_the_canonical_cells_never() -> None:
    functions = function_indices()
    for i in range(0, NUM_CELLS, 97):
        assert functions[NASBench201Cell.from_index(i).canonical().index] == functions[i]
        assert functions[i] <= i
        assert functions[functions[i]] == functions[i]


def test_equivalent_indices() -> None:
    functions = function_indices()
    sizes = functions.bincount()
    for i in [0, 7, 1000, 15624, int(sizes.argmax())]:
        members = equivalent_indices(i)
        assert (functions[members] == functions[i]).all()
        assert len(members) == min(int(sizes[functions[i]]), 64)
        assert (members.diff() > 0).all()
        assert i in members or len(members) == 64


def test_exchanged_feature_maps() -> None:
    cell = NASBench201Cell.from_str(
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|avg_pool_3x3~2|"
    )
    other = NASBench201Cell.from_str(
        "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|avg_pool_3x3~1|skip_connect~2|"
    )
    assert other.index in equivalent_indices(cell.index)


@pytest.mark.parametrize(("index", "error"), [(-1, ValueError), (NUM_CELLS, ValueError)])
def test_range(index: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="'index' to be between 0 and 15624"):
        equivalent_indices(index)


def test_cell_indices() -> None:
    indices = [0, 12345, 15624, 17]
    graphs = [NASBench201Cell.from_index(i).to_data() for i in indices]
    assert cell_indices(graphs).tolist() == indices
    assert cell_indices([]).tolist() == []


@pytest.mark.parametrize("what", ["foreign", "operation", "edges", "empty"])
def test_no_cell(what: str) -> None:
    data = NASBench201Cell.from_index(5).to_data()
    if what == "foreign":
        data = next(iter(FakeNAS(1)))
    elif what == "operation":
        data.op[3] = 6
    elif what == "edges":
        data.edge_index = data.edge_index[:, :-1]
    else:
        data = Data()
    graphs = [NASBench201Cell.from_index(4).to_data(), data]
    with pytest.raises(ValueError, match=r"cells of NAS-Bench-201, .* \(got graph 1: Data"):
        cell_indices(graphs)


def test_labels_are_not_looked_at() -> None:
    data = NASBench201Cell.from_index(5).to_data()
    data.y = torch.ones(1, 1)
    assert cell_indices([data]).tolist() == [5]
