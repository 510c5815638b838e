from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dense_reference
import pytest
import torch
from dense_reference import randomize, released_weights
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from narformer_pyg.errors import CheckpointError
from narformer_pyg.nn.models import NARFormerV2, create_model
from narformer_pyg.nn.models.narformer_v2 import all_pairs
from narformer_pyg.testing import (
    assert_all_parameters_receive_gradients,
    assert_batch_invariant,
    assert_permutation_invariant,
)

TASKS: dict[str, dict[str, Any]] = {
    "accuracy": {"in_channels": 6, "hidden_channels": 16, "num_blocks": 3},
    "latency": {
        "in_channels": 5,
        "hidden_channels": 24,
        "num_blocks": 2,
        "readout": "sum",
        "static_channels": 7,
    },
}


def make_graphs(channels: int, static_channels: int = 0, number: int = 5) -> list[Data]:
    generator = torch.Generator().manual_seed(3)
    graphs = []
    for size in range(2, 2 + number):
        upper = torch.triu(torch.rand(size, size, generator=generator) < 0.6, diagonal=1)
        upper[0, 1] = True
        data = Data(
            x=torch.randn(size, channels, generator=generator, dtype=torch.double),
            edge_index=upper.nonzero().t().contiguous(),
        )
        if static_channels > 0:
            data.static = torch.rand(1, static_channels, generator=generator, dtype=torch.double)
        graphs.append(data)
    return graphs


def run(model: NARFormerV2) -> Callable[[Batch], Tensor]:
    return lambda batch: model(
        batch.x, batch.edge_index, batch.batch, batch.get("static"), batch.num_graphs
    )


def dense(weights: dict[str, Tensor], graphs: list[Data]) -> Tensor:
    outputs = []
    for data in graphs:
        static = data.static[0] if "static" in data else None
        outputs.append(dense_reference.model(weights, data.x, data.edge_index, static))
    return torch.stack(outputs)


def create(task: str, **kwargs: Any) -> NARFormerV2:
    model = NARFormerV2(**{**TASKS[task], **kwargs}).double().eval()
    randomize(model, scale=0.3)
    return model


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _with_weights_of(model: NARFormerV2, other: NARFormerV2) -> NARFormerV2:
    model.load_state_dict(other.state_dict())
    return model


class TestNARFormerV2:
    def test_parameters_of_the_paper(self) -> None:
        with torch.device("meta"):
            assert count(NARFormerV2(128)) == 8_582_535
            latency = NARFormerV2(152, num_blocks=2, readout="sum", static_channels=40)
        assert count(latency) == 2_310_921

    @pytest.mark.parametrize("task", TASKS)
    def test_dense_reference(self, task: str) -> None:
        model = create(task, out_channels=2)
        graphs = make_graphs(model.in_channels, model.static_channels)
        out = run(model)(Batch.from_data_list(graphs))
        assert out.shape == (5, 2)
        assert out.std(dim=0).min() > 1e-3
        expected = dense(released_weights(model), graphs)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
        single = model.float()(
            graphs[0].x.float(),
            graphs[0].edge_index,
            static=graphs[0].static.float() if "static" in graphs[0] else None,
        )
        torch.testing.assert_close(single, expected[:1].float(), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("readout", ["fusion", "sum", "mean"])
    def test_invariances(self, readout: str) -> None:
        model = create("accuracy", readout=readout)
        graphs = make_graphs(6)
        assert_batch_invariant(run(model), graphs, atol=1e-10)
        batch = Batch.from_data_list(graphs)
        assert_permutation_invariant(model, batch.x, batch.edge_index, batch.batch, atol=1e-10)

    def test_batch_invariance_with_graph_features(self) -> None:
        assert_batch_invariant(run(create("latency")), make_graphs(5, 7), atol=1e-10)

    @pytest.mark.parametrize("task", TASKS)
    def test_all_parameters_receive_gradients(self, task: str) -> None:
        torch.manual_seed(0)
        model = NARFormerV2(**TASKS[task]).double()
        batch = Batch.from_data_list(make_graphs(model.in_channels, model.static_channels))
        assert_all_parameters_receive_gradients(model, run(model)(batch).sum())

    def test_dropout(self) -> None:
        torch.manual_seed(0)
        model = create("accuracy").train()
        (data,) = make_graphs(6, number=1)
        out = torch.cat([model(data.x, data.edge_index) for _ in range(3)])
        assert len(out.unique()) == 3

    def test_undirected(self) -> None:
        undirected, directed = create("accuracy"), create("accuracy", undirected=False)
        directed.load_state_dict(undirected.state_dict())
        data = make_graphs(6)[-1]
        both = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
        out = undirected(data.x, data.edge_index)
        torch.testing.assert_close(out, directed(data.x, both))
        torch.testing.assert_close(out, undirected(data.x, data.edge_index.flip(0)))
        assert not torch.allclose(out, directed(data.x, data.edge_index))

    @pytest.mark.parametrize("undirected", [True, False])
    def test_edge_formats(self, undirected: bool) -> None:
        model = create("accuracy", undirected=undirected)
        data = make_graphs(6)[-1]
        expected = model(data.x, data.edge_index)
        csr = dense_reference.adjacency(data.edge_index, data.num_nodes).to_sparse_csr()
        torch.testing.assert_close(model(data.x, csr), expected)
        size = (data.num_nodes, data.num_nodes)
        edge_index = EdgeIndex(data.edge_index, sparse_size=size)
        torch.testing.assert_close(model(data.x, edge_index), expected)

    def test_global_attention(self) -> None:
        model = NARFormerV2(8, 16, 2, attention="global_softmax", num_groups=4).double().eval()
        graphs = make_graphs(8)
        batch = Batch.from_data_list(graphs)
        out = model(batch.x, batch.edge_index, batch.batch)
        # Edges are of no concern, and nodes of other graphs are not seen.
        torch.testing.assert_close(model(batch.x, batch.edge_index[:, :0], batch.batch), out)
        alone = torch.cat([model(data.x, data.edge_index) for data in graphs])
        torch.testing.assert_close(alone, out)
        near = NARFormerV2(8, 16, 2, attention="softmax", num_groups=4).double().eval()
        near.load_state_dict(model.state_dict())
        assert not torch.allclose(near(batch.x, batch.edge_index, batch.batch), out)

    def test_all_pairs(self) -> None:
        edges = all_pairs(torch.tensor([0, 0, 2, 2, 2]), 4)
        expected = {(i, j) for i in range(2) for j in range(2)}
        expected |= {(i, j) for i in range(2, 5) for j in range(2, 5)}
        assert edges.size(1) == 13
        assert set(map(tuple, edges.t().tolist())) == expected
        assert all_pairs(torch.empty(0, dtype=torch.long), 0).shape == (2, 0)

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"attention": "softmax"},
            {"attention": "global_softmax", "norm": "layer"},
            {"norm": "layer"},
            {"ffn_ratio": 0},
            {"layer_scale": None},
            {"layer_scale": 0.5, "sigmoid": False},
        ],
    )
    def test_variants(self, kwargs: dict[str, Any]) -> None:
        model = NARFormerV2(8, 16, 2, num_groups=4, dropout=0.0, **kwargs).double()
        batch = Batch.from_data_list(make_graphs(8))
        out = model(batch.x, batch.edge_index, batch.batch)
        assert_all_parameters_receive_gradients(model, (out * torch.randn_like(out)).sum())
        again = create_model("narformer_v2", **model.config).double()
        again.load_state_dict(model.state_dict())
        torch.testing.assert_close(again(batch.x, batch.edge_index, batch.batch), out)
        plain = NARFormerV2(8, 16, 2, num_groups=4, dropout=0.0).double()
        assert plain.state_dict().keys() != model.state_dict().keys() or not torch.allclose(
            _with_weights_of(plain, model)(batch.x, batch.edge_index, batch.batch), out
        )

    def test_reset_parameters(self) -> None:
        torch.manual_seed(0)
        model = NARFormerV2(**TASKS["latency"])
        randomize(model, scale=10.0)
        model.reset_parameters()
        for name, p in model.named_parameters():
            limit = 1.0 if "norm" in name or "lin_d" in name else 0.7
            assert p.abs().max() <= limit, name
        assert (model.blocks[0].layer_scale == 1e-4).all()

    def test_config_builds_the_same_model(self) -> None:
        model = NARFormerV2(4, 16, 2, degree_gate=False, normalize=False, ffn_ratio=2)
        again = NARFormerV2(**model.config)
        again.load_state_dict(model.state_dict())
        assert not again.blocks[1].conv.normalize

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"in_channels": 0}, r"'in_channels' to be a positive integer \(got 0\)"),
            ({"hidden_channels": 1.5}, r"'hidden_channels'.*got 1.5"),
            (
                {"hidden_channels": 12},
                r"'hidden_channels' .* 'num_groups' \(got 12 and 8\)",
            ),
            ({"num_blocks": 0}, r"'num_blocks' to be a positive integer \(got 0\)"),
            ({"out_channels": True}, r"'out_channels'.*got True"),
            ({"static_channels": -1}, r"'static_channels' to be an integer >= 0 \(got -1\)"),
            ({"dropout": 1.0}, r"'dropout' to be in \[0, 1\) \(got 1.0\)"),
            ({"readout": "max"}, r"'readout' to be among sum, mean, fusion \(got 'max'\)"),
            ({"in_channels": -2}, r"'in_channels' to be a positive integer \(got -2\)"),
            ({"attention": "sparse"}, r"'attention' .* global_softmax \(got 'sparse'\)"),
            ({"norm": "batch"}, r"'norm' to be 'unit' or 'layer' \(got 'batch'\)"),
            ({"ffn_ratio": -1}, r"'ffn_ratio' to be an integer >= 0 \(got -1\)"),
        ],
    )
    def test_wrong_arguments(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NARFormerV2(**{"in_channels": 4, "hidden_channels": 16, **kwargs})

    def test_wrong_inputs(self) -> None:
        accuracy, latency = NARFormerV2(**TASKS["accuracy"]), NARFormerV2(**TASKS["latency"])
        edges = torch.tensor([[0], [1]])
        x = torch.randn(3, 6)
        with pytest.raises(ValueError, match=r"'x'.*\[num_nodes, 6\].*got \[3, 5\]"):
            accuracy(torch.randn(3, 5), edges)
        with pytest.raises(ValueError, match=r"'static' to be None.*got shape \[1, 7\]"):
            accuracy(x, edges, static=torch.randn(1, 7))
        with pytest.raises(ValueError, match=r"'batch' to have shape \[3\].*got \[2\]"):
            accuracy(x, edges, torch.zeros(2, dtype=torch.long))
        with pytest.raises(ValueError, match=r"'edge_index' to name nodes from 0 to 2.*got node 3"):
            accuracy(x, edges + 2)
        with pytest.raises(ValueError, match=r"'edge_index'.*shape \[2, num_edges\].*got \[2\]"):
            accuracy(x, torch.tensor([0, 1]))
        with pytest.raises(ValueError, match=r"'static' to have shape \[1, 7\].*got None"):
            latency(x[:, :5], edges)
        with pytest.raises(ValueError, match=r"'static' to have shape \[1, 7\].*got \[1, 6\]"):
            latency(x[:, :5], edges, static=torch.randn(1, 6))
        with pytest.raises(ValueError, match=r"'static' to have shape \[2, 7\].*got \[1, 7\]"):
            latency(x[:, :5], edges, torch.tensor([0, 0, 1]), torch.randn(1, 7))


def fake_release(task: str) -> dict[str, Tensor]:
    """Random weights with the names and shapes of the authors' files."""
    config = TASKS[task]
    in_channels, c, blocks = config["in_channels"], config["hidden_channels"], config["num_blocks"]
    static = config.get("static_channels", 0)
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(blocks):
        d = in_channels if i == 0 else c
        shapes |= {
            f"gnn_layers.{i}.lin_d.weight": (d, 1),
            f"gnn_layers.{i}.lin_d.bias": (d,),
            f"gnn_layers.{i}.lin_qk.weight": (d, d),
            f"gnn_layers.{i}.lin_qk.bias": (d,),
            f"gnn_layers.{i}.lin_l.weight": (c, d),
            f"gnn_layers.{i}.lin_l.bias": (c,),
            f"gnn_layers.{i}.lin_r.weight": (c, d),
            f"FFN_layers.{i}.norm.weight": (c,),
            f"FFN_layers.{i}.norm.bias": (c,),
            f"FFN_layers.{i}.fn.net.0.weights": (8, c // 8, c // 2),
            f"FFN_layers.{i}.fn.net.0.bias": (8, 1, c // 2),
            f"FFN_layers.{i}.fn.net.0.normalization_fn.weight": (c // 2,),
            f"FFN_layers.{i}.fn.net.0.normalization_fn.bias": (c // 2,),
            f"FFN_layers.{i}.fn.net.3.weights": (8, c // 2, c // 8),
            f"FFN_layers.{i}.fn.net.3.bias": (8, 1, c // 8),
            f"FFN_layers.{i}.fn.net.3.normalization_fn.weight": (c // 8,),
            f"FFN_layers.{i}.fn.net.3.normalization_fn.bias": (c // 8,),
            f"layer_scale.{i}": (c,),
        }
    if task == "accuracy":
        shapes |= {
            "fusion_mlp.0.weight": (blocks * c // 4, blocks * c),
            "fusion_mlp.0.bias": (blocks * c // 4,),
            "fusion_mlp.2.weight": (blocks, blocks * c // 4),
            "fusion_mlp.2.bias": (blocks,),
        }
    else:
        shapes |= {"norm_sf_linear.weight": (c, static), "norm_sf_linear.bias": (c,)}
    shapes |= {
        "fc_1.weight": (c, c if static == 0 else 2 * c),
        "fc_1.bias": (c,),
        "fc_2.weight": (c, c),
        "fc_2.bias": (c,),
        "predictor.weight": (1, c),
        "predictor.bias": (1,),
    }
    generator = torch.Generator().manual_seed(11)
    return {k: 0.3 * torch.randn(shape, generator=generator) for k, shape in shapes.items()}


class TestReleasedCheckpoint:
    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("form", ["state dict", "nested", "file", "path"])
    @pytest.mark.parametrize("task", TASKS)
    def test_same_output(self, task: str, form: str, prefix: str, tmp_path: Path) -> None:
        weights = fake_release(task)
        state_dict = {prefix + key: w for key, w in weights.items()}
        nested = {"state_dict": state_dict, "epoch": 49, "best_acc": 0.99, "best_tau": 0.87}
        checkpoint: Any = state_dict if form == "state dict" else nested
        if form in ("file", "path"):
            torch.save(nested, tmp_path / "released.pth.tar")
            checkpoint = tmp_path / "released.pth.tar"
            checkpoint = str(checkpoint) if form == "file" else checkpoint
        model = NARFormerV2.from_released_checkpoint(checkpoint).double().eval()
        assert {k: model.config[k] for k in TASKS[task]} == TASKS[task]
        graphs = make_graphs(model.in_channels, model.static_channels)
        out = run(model)(Batch.from_data_list(graphs))
        expected = dense({k: w.double() for k, w in weights.items()}, graphs)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)

    def test_arguments(self) -> None:
        model = NARFormerV2.from_released_checkpoint(
            fake_release("accuracy"), dropout=0.2, undirected=False, normalize=False
        )
        assert model.dropout.p == 0.2
        assert not model.undirected
        assert not model.blocks[0].conv.normalize

    @pytest.mark.parametrize("task", TASKS)
    def test_missing_key(self, task: str) -> None:
        weights = fake_release(task)
        for key in weights:
            partial = {k: w for k, w in weights.items() if k != key}
            if key in ("gnn_layers.0.lin_d.weight", "gnn_layers.0.lin_r.weight"):
                match = "not part of such a model"  # the other blocks have what this one lacks
            elif key in ("fusion_mlp.0.weight", "norm_sf_linear.weight"):
                match = "not part of such a model|wrong shape"
            elif key == "FFN_layers.0.fn.net.0.weights" or key.endswith("0.lin_l.weight"):
                match = "missing|at least one block"
            elif key == "predictor.weight":
                match = "at least one block.*head"
            else:
                match = "missing"
            with pytest.raises(CheckpointError, match=match):
                NARFormerV2.from_released_checkpoint(partial)

    def test_missing_key_is_named(self) -> None:
        weights = fake_release("accuracy")
        del weights["FFN_layers.1.fn.net.3.bias"]
        with pytest.raises(CheckpointError, match=r"missing: blocks.1.ffn.lin_2.bias"):
            NARFormerV2.from_released_checkpoint(weights)

    def test_missing_block(self) -> None:
        weights = {k: w for k, w in fake_release("accuracy").items() if ".1." not in k}
        del weights["layer_scale.1"]
        with pytest.raises(CheckpointError, match=r"numbered from 0 without a gap \(got 0, 2\)"):
            NARFormerV2.from_released_checkpoint(weights)

    @pytest.mark.parametrize("key", ["extra.weight", "gnn_layers.0.lin_x.weight", "layer_scale", 3])
    def test_unknown_key(self, key: Any) -> None:
        weights: dict[Any, Any] = {**fake_release("accuracy"), key: torch.ones(1)}
        with pytest.raises(CheckpointError, match=f"unknown keys {key}"):
            NARFormerV2.from_released_checkpoint(weights)

    @pytest.mark.parametrize("task", TASKS)
    def test_wrong_shape(self, task: str) -> None:
        weights = fake_release(task)
        for key, w in weights.items():
            for wrong in (w.new_zeros(*w.shape, 1), w.new_zeros(w.shape[0] + 1, *w.shape[1:])):
                with pytest.raises(CheckpointError):
                    NARFormerV2.from_released_checkpoint({**weights, key: wrong})
        with pytest.raises(CheckpointError, match=r"head.lin_2.bias \[3\] instead of \[\d+\]"):
            NARFormerV2.from_released_checkpoint({**weights, "fc_2.bias": torch.ones(3)})

    @pytest.mark.parametrize(
        "foreign",
        [
            {},
            {"state_dict": {}},
            {"epoch": 3},
            {"weight": torch.ones(3)},
            {"state_dict": torch.nn.Linear(2, 2).state_dict()},
            {"state_dict": {"fc_1.weight": "text"}},
            {"layer_scale.0": torch.ones(3)},
        ],
    )
    def test_foreign_content(self, foreign: Any, tmp_path: Path) -> None:
        torch.save(foreign, tmp_path / "foreign.pt")
        for checkpoint in (foreign, tmp_path / "foreign.pt"):
            with pytest.raises(CheckpointError, match="'checkpoint'"):
                NARFormerV2.from_released_checkpoint(checkpoint)

    def test_foreign_object(self, tmp_path: Path) -> None:
        torch.save([torch.ones(2)], tmp_path / "list.pt")
        with pytest.raises(CheckpointError, match=r"'checkpoint' to be a state dict.*got list"):
            NARFormerV2.from_released_checkpoint(tmp_path / "list.pt")

    def test_damaged_files(self, tmp_path: Path) -> None:
        file = tmp_path / "damaged.pt"
        torch.save({"state_dict": fake_release("accuracy")}, file)
        content = file.read_bytes()
        damaged = [content[: len(content) * k // 7] for k in range(7)]
        damaged += [b"just text", b"\x80\x02", pickle.dumps({"a": 1})[:-1], os.urandom(500)]
        for content in damaged:
            file.write_bytes(content)
            with pytest.raises(CheckpointError, match="Cannot read 'checkpoint'"):
                NARFormerV2.from_released_checkpoint(file)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            NARFormerV2.from_released_checkpoint(tmp_path / "absent.pt")
