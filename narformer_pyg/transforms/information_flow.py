"""Augmentation of architectures by other orders of the same information flow."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from narformer_pyg._checks import check_integer, check_seed
from narformer_pyg.transforms._topological import LabelledDAG, Relabelled


@functional_transform("information_flow_augmentation")
class InformationFlowAugmentation(BaseTransform):
    r"""Reorders the nodes of an architecture without changing what it computes.

    This is the information flow consistency augmentation of the `"NAR-Former V2: Rethinking
    Transformer for Universal Neural Network Representation Learning"
    <https://arxiv.org/abs/2306.10792>`_ paper. It permutes the intermediate nodes and keeps the
    first (input) and the last (output):

    .. math::
        \mathbf{A}^{\prime}_{i,j} = \mathbf{A}_{\pi(i), \pi(j)}, \qquad
        \mathbf{o}^{\prime}_i = \mathbf{o}_{\pi(i)}

    A permutation :math:`\pi` is valid if :math:`\mathbf{A}^{\prime}` is upper triangular, like
    :math:`\mathbf{A}`, and :math:`(\mathbf{A}^{\prime}, \mathbf{o}^{\prime}) \neq (\mathbf{A},
    \mathbf{o})`. The authors take the first valid permutation in lexicographic order
    (:obj:`"first"`); our :obj:`"random"` draws one node by node at every call, so not all are
    equally likely. A graph without a valid permutation among :obj:`max_tries` comes back as a copy.

    :math:`\mathbf{o}` stands for all node-level attributes except :obj:`position`, which stays the
    topological index. Edge-level attributes move with their edges, which are sorted by target, then
    by source. As in PyG, the size of an attribute decides its level. All other tensors are shared.

    Args:
        mode (str, optional): Which valid permutation to take (:obj:`"first"` or :obj:`"random"`).
            (default: :obj:`"first"`)
        max_tries (int, optional): The number of orders to try. If no random order is valid, the
            first valid one is searched with as many tries again. (default: :obj:`64`)
        seed (int, optional): The seed of a private stream of random numbers. By default, PyTorch's
            global generator draws them. (default: :obj:`None`)

    Raises:
        ValueError: If an argument has the wrong type or range or, at the call, if an edge does not
            lead to a node of higher id or another attribute than :obj:`edge_index` holds node ids.
    """

    def __init__(
        self,
        mode: Literal["first", "random"] = "first",
        max_tries: int = 64,
        seed: int | None = None,
    ) -> None:
        self.mode = _check_mode(mode)
        self.max_tries = check_integer("max_tries", max_tries)
        self.seed = None if seed is None else check_seed(seed)
        self._generator = None if seed is None else torch.Generator().manual_seed(int(seed))

    def forward(self, data: Data) -> Data:
        """Returns a reordered copy of a graph."""
        rng = None
        if self.mode == "random":
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self._generator)
            rng = random.Random(int(drawn))
        dag = LabelledDAG(data)
        found = _find(dag, 1, self.max_tries, rng)
        return dag.apply(data, found[0]) if found else copy.copy(data)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(mode={self.mode!r}, max_tries={self.max_tries}, "
            f"seed={self.seed})"
        )


def augment(
    dataset: Iterable[Data],
    num_copies: int = 1,
    mode: Literal["first", "random"] = "first",
    max_tries: int = 64,
    seed: int = 0,
) -> list[Data]:
    r"""Returns augmented copies of all graphs, see :class:`InformationFlowAugmentation`.

    The copies come in blocks, the first of each graph, the second of each graph, and so on, as
    :class:`~narformer_pyg.loader.PairedBatchSampler` expects them after the originals. The copies
    of a graph differ, or repeat where it has too few valid permutations.

    Args:
        dataset (iterable of Data): The graphs.
        num_copies (int, optional): The number of copies of each graph. (default: :obj:`1`)
        mode (str, optional): Whether to take the first valid permutations (:obj:`"first"`) or
            random ones (:obj:`"random"`). (default: :obj:`"first"`)
        max_tries (int, optional): The number of orders to try for each copy.
            (default: :obj:`64`)
        seed (int, optional): The seed of the random permutations. (default: :obj:`0`)

    Raises:
        ValueError: If an argument has the wrong type or range, or a graph is not in topological
            order.
    """
    num_copies = check_integer("num_copies", num_copies)
    max_tries = check_integer("max_tries", max_tries)
    check_seed(seed)
    rng = random.Random(seed) if _check_mode(mode) == "random" else None
    blocks: list[list[Data]] = [[] for _ in range(num_copies)]
    for data in dataset:
        dag = LabelledDAG(data)
        found = _find(dag, num_copies, max_tries * num_copies, rng)
        for k, block in enumerate(blocks):
            block.append(dag.apply(data, found[k % len(found)]) if found else copy.copy(data))
    return [data for block in blocks for data in block]


def _find(
    dag: LabelledDAG, count: int, max_tries: int, rng: random.Random | None
) -> list[Relabelled]:
    """Returns up to :obj:`count` valid permutations that give different graphs."""
    found: dict[Any, Relabelled] = {}

    def collect(orders: Iterator[list[int]]) -> None:
        for order in islice(orders, max_tries):
            new = dag.relabel(order)
            if new.key != dag.key:
                found.setdefault(new.key, new)
                if len(found) == count:
                    return

    if rng is not None:
        collect(dag.random_order(rng) for _ in range(max_tries))
    if len(found) < count:
        collect(dag.orders())
    return list(found.values())


def _check_mode(mode: Any) -> str:
    if mode not in ("first", "random"):
        raise ValueError(f"Expected 'mode' to be 'first' or 'random' (got {mode!r})")
    return mode
