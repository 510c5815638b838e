"""On the CPU, steps are the same but for the recording; tests marked `gpu` record them."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Data

from narformer_pyg._cuda_graphs import RecordedCalls
from narformer_pyg.datasets import NASBench201
from narformer_pyg.errors import CheckpointError
from narformer_pyg.loader import DeviceLoader
from narformer_pyg.loader.padded_batches import PaddedBatches
from narformer_pyg.nn import CellTokenEncoder, OperatorTokenEncoder
from narformer_pyg.nn.kernels.triton_attention import sort_edges
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.training import FitResult, PredictorModule, Recipe, fit, get_recipe
from narformer_pyg.training.callbacks import ResumableCheckpoint

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
RECIPE = Recipe(
    name="test",
    epochs=4,
    batch_size=4,
    learning_rate=1e-3,
    weight_decay=0.01,
    gradient_clip=0.5,
    losses={"relative_mse": 1.0, "pairwise_ranking": 0.1},
    model={"hidden_channels": 16, "num_blocks": 2, "dropout": 0.0},
)
DROPOUT = dataclasses.replace(RECIPE, model={**RECIPE.model, "dropout": 0.1})


@pytest.fixture(scope="module")
def cells() -> NASBench201:
    return NASBench201(target="cifar10valid_valid_acc")[:10]


def networks(count: int = 10) -> list[Data]:
    """Chains of different lengths."""
    torch.manual_seed(0)
    return [
        Data(
            op=torch.randint(5, (n,)),
            position=torch.arange(n),
            edge_index=torch.stack([torch.arange(n - 1), torch.arange(1, n)]),
            y=50 + 50 * torch.rand(1, 1),
            num_nodes=n,
        )
        for n in torch.randint(2, 30, (count,)).tolist()
    ]


def run(graphs: Any, engine: str, recipe: Recipe = RECIPE, **kwargs: Any) -> FitResult:
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **recipe.model)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    kwargs = {"device": "cpu", "progress": False, "engine": engine, **kwargs}
    return fit(predictor, graphs, recipe, **kwargs)


def assert_close(a: FitResult, b: FitResult, device: str = "cpu", tolerance: float = 1e-6) -> None:
    """Compares losses and parameters; a GPU adds in no fixed order, which Adam magnifies."""
    if device == "cuda":
        tolerance = max(tolerance, 1e-3)
    losses = ([entry["loss"] for entry in result.history] for result in (a, b))
    torch.testing.assert_close(*losses, rtol=10 * tolerance, atol=tolerance)
    if device == "cpu":
        states = a.predictor.state_dict(), b.predictor.state_dict()
        torch.testing.assert_close(*states, rtol=10 * tolerance, atol=10 * tolerance)


def assert_equal(a: FitResult, b: FitResult) -> None:
    first, second = a.predictor.state_dict(), b.predictor.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("augmentation", [None, "first", "random", "equivalent"])
def test_cells_train_as_step_by_step(cells: NASBench201, augmentation: Any, device: str) -> None:
    recipe = dataclasses.replace(RECIPE, augmentation=augmentation, num_copies=2)
    if augmentation in ("first", "random"):
        losses = {**recipe.losses, "architecture_consistency": 0.5}
        recipe = dataclasses.replace(recipe, losses=losses)
    results = [run(cells, engine, recipe, device=device) for engine in ("eager", "captured")]
    assert_close(*results, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_padded_networks_train_as_step_by_step(device: str, precision: str) -> None:
    results = [
        run(networks(), engine, device=device, precision=precision)
        for engine in ("eager", "captured")
    ]
    assert_close(*results, device, tolerance=1e-6 if precision == "32-true" else 1e-2)


class StopAfter(Callback):
    """Raises where an epoch begins."""

    def __init__(self, epoch: int, error: type[BaseException]) -> None:
        self.epoch, self.error = epoch, error

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_resumed_run_is_exact(
    cells: NASBench201, tmp_path: Path, error: type[BaseException], device: str
) -> None:
    arguments = {"device": device, "val_set": networks(), "check_val_every_n_epoch": 1}
    whole = run(cells, "captured", DROPOUT, **arguments)
    file = tmp_path / "training.ckpt"
    with pytest.raises(error):
        run(
            cells, "captured", DROPOUT, checkpoint=ResumableCheckpoint(file, 0.0),
            callbacks=[StopAfter(2, error)], **arguments,
        )  # fmt: skip
    resumed = run(cells, "captured", DROPOUT, resume=file, **arguments)
    if device == "cpu":
        assert_equal(whole, resumed)
        assert whole.history == resumed.history
    else:  # sums over graphs have no fixed order there
        assert_close(whole, resumed, device)
    with pytest.raises(CheckpointError, match="engine"):
        run(cells, "eager", DROPOUT, resume=file, **arguments)


def test_callbacks_see_epochs_and_steps(cells: NASBench201) -> None:
    seen = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            seen.append((trainer.current_epoch, trainer.global_step, float(rate)))

    run(cells, "captured", callbacks=[Watch()])
    steps = 3 * RECIPE.epochs  # 10 cells in batches of 4
    assert [epoch for epoch, *_ in seen] == [0, 1, 2, 3]
    assert [step for _, step, _ in seen] == [3, 6, 9, 12]
    expected = [1e-3 * (steps - step) / (steps - 1) for step in (2, 5, 8, 11)]
    assert [rate for *_, rate in seen] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_loss_that_is_no_number(cells: NASBench201, device: str) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, gradient_clip=0.0)
    with pytest.raises(FloatingPointError, match=r"loss became .* in epoch [01]; lower"):
        run(cells, "captured", recipe, device=device)


class EveryBatch(Callback):
    """Wants to see single batches."""

    def on_train_batch_end(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"precision": "64-true"}, "'64-true'"),
        ({"max_steps": 3}, "max_steps"),
        ({"callbacks": [EveryBatch()]}, "EveryBatch"),
    ],
)
def test_falls_back_with_a_reason(
    cells: NASBench201, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        run(cells, "captured", **arguments)
    assert len(caplog.records) == 1
    assert reason in caplog.text


@pytest.mark.parametrize("pads", [False, True])
def test_batch_norms_do_not_see_padding(
    cells: NASBench201, caplog: pytest.LogCaptureFixture, pads: bool
) -> None:
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", encoder.out_channels, **RECIPE.model)
    model.blocks[0].act = torch.nn.BatchNorm1d(16)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    graphs = networks() if pads else cells
    fit(predictor, graphs, RECIPE, device="cpu", engine="captured", progress=False)
    assert ("batch norms would see the padding" in caplog.text) == pads


def test_half_precision_with_clipping_asks_for_no_number(cells: NASBench201) -> None:
    """Only a fused optimizer skips a step of infinite gradients by itself."""

    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            assert trainer.optimizers[0]._step_supports_amp_scaling

    run(cells, "captured", precision="bf16-mixed", callbacks=[Watch()])


def test_unknown_engine(cells: NASBench201) -> None:
    with pytest.raises(ValueError, match=r"Expected 'engine' to be among auto, .* \(got 'fast'\)"):
        run(cells, "fast")


def test_compiler_that_fails(
    cells: NASBench201, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no C compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail)
    run(cells, "compiled")
    assert caplog.text.count("not compiled: RuntimeError: no C compiler\n") == 1


def test_out_of_memory_names_batch_and_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RecordedCalls, shape: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RecordedCalls, "__call__", fail)
    expected = r"batches of 4 graphs, padded to \d+ nodes and \d+ edges; lower 'batch_size'"
    with pytest.raises(torch.OutOfMemoryError, match=expected):
        run(networks(), "captured")


def test_calls_that_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RecordedCalls, "_record", lambda self, shape: "it waits")
    calls = RecordedCalls(lambda shape: torch.tensor(shape), torch.device("cuda"))
    assert [int(calls(3)), int(calls(4))] == [3, 4]
    assert caplog.text.count("it waits") == 1


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("engine", "precision"),
    [("captured", p) for p in ("32-true", "bf16-mixed", "16-mixed")] + [("compiled", "32-true")],
)
def test_precisions_on_a_gpu(cells: NASBench201, engine: str, precision: str) -> None:
    recipe = dataclasses.replace(DROPOUT, epochs=30, learning_rate=1e-2)
    result = run(cells, engine, recipe, device="cuda", precision=precision)
    assert result.history[-1]["loss"] < 0.85 * result.history[0]["loss"]


@pytest.mark.gpu
def test_model_that_waits_is_called_step_by_step(caplog: pytest.LogCaptureFixture) -> None:
    recipe = dataclasses.replace(RECIPE, model={**RECIPE.model, "attention": "global_softmax"})
    result = run(networks(), "captured", recipe, device="cuda")
    assert caplog.text.count("not recorded as CUDA graphs") == 1
    assert_close(result, run(networks(), "eager", recipe, device="cuda"), "cuda")


@pytest.mark.gpu
def test_networks_of_operators_are_recorded(caplog: pytest.LogCaptureFixture) -> None:
    graphs = networks()
    for graph in graphs:
        graph.attr, graph.static = torch.rand(graph.num_nodes, 12), torch.rand(1, 4) * 1e9
    encoder = OperatorTokenEncoder()
    channels = {"static_channels": encoder.static_channels, "readout": "sum"}
    model = create_model("narformer_v2", encoder.out_channels, **RECIPE.model, **channels)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    fit(predictor, graphs, RECIPE, device="cuda", engine="captured", progress=False)
    assert "not recorded" not in caplog.text


@pytest.mark.gpu
def test_recording_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Explicit synchronization is refused while a graph is recorded."""
    device = torch.device("cuda")

    def draw(shape: int) -> torch.Tensor:
        torch.cuda.synchronize()
        return torch.rand(shape, device=device)

    calls, outside = RecordedCalls(draw, device), torch.cuda.current_stream()
    torch.manual_seed(0)
    drawn = [calls(3), calls(3)]
    assert caplog.text.count("recording failed") == 1
    assert torch.cuda.current_stream() == outside
    torch.manual_seed(0)
    assert all(torch.equal(draw(3), value) for value in drawn)


@pytest.mark.gpu
def test_recording_leaves_state_and_random_numbers() -> None:
    device = torch.device("cuda")
    total = torch.zeros(3, device=device)

    def add(shape: int) -> torch.Tensor:
        return total.add_(torch.rand(3, device=device)).clone()

    calls = RecordedCalls(add, device, lambda: [total])
    torch.manual_seed(0)
    recorded = [calls(3).clone() for _ in range(3)]
    torch.manual_seed(0)
    total.zero_()
    assert all(torch.equal(add(3), value) for value in recorded)


class _Refuse(TorchDispatchMode):
    """Raises where numbers come from the host: a copy that no CUDA graph can record."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "lift_fresh" not in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["quick", "best", "paper", "latency", "latency_paper"])
def test_a_step_asks_the_host_for_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Tensors without values: what depends on values, and would wait for a GPU, raises."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as where nobody looks
    recipe = get_recipe(name)
    graphs: Any = NASBench201(target="cifar10valid_valid_acc")[:20]
    encoder: Any = CellTokenEncoder()
    if recipe.token_encoder:
        encoder, graphs = OperatorTokenEncoder(**recipe.token_encoder), networks()
        for graph in graphs:
            graph.attr, graph.static = torch.rand(graph.num_nodes, 12), torch.rand(1, 4)
    arguments = {**recipe.model, "hidden_channels": 16, "static_channels": encoder.static_channels}
    model = create_model("narformer_v2", encoder.out_channels, **arguments)
    predictor = ArchitecturePredictor(encoder, model, scale=100.0)
    loader = DeviceLoader(graphs, 4, seed=0)
    batches = PaddedBatches(loader, [*encoder.tokens, "y"])
    index = next(iter(loader.batch_sampler))
    shape = batches.shape_of(index)
    module = PredictorModule(predictor, recipe, loader)
    fake = FakeTensorMode()
    for owner in module.modules():
        for tensors in (owner._parameters, owner._buffers):
            tensors.update({k: fake.from_tensor(v) for k, v in tensors.items() if v is not None})
    for attribute in batches._attributes:
        attribute.value = fake.from_tensor(attribute.value)
    batches._on_device = {
        i: (fake.from_tensor(a), fake.from_tensor(b), c)
        for i, (a, b, c) in batches._on_device.items()
    }
    with fake, _Refuse():
        batch = batches.cut(fake.from_tensor(index), shape)
        module.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        sort_edges(batch.edge_index, shape.nodes)
        assert predictor.eval()(batch).shape[0] == shape.graphs + batches.pads
