from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch_geometric.data import Batch, Data

from narformer_pyg.datasets import NASBench201
from narformer_pyg.errors import CheckpointError
from narformer_pyg.loader import DeviceLoader, PairedBatchSampler
from narformer_pyg.nn import CellTokenEncoder, register_loss
from narformer_pyg.nn.models import create_model
from narformer_pyg.predictor import ArchitecturePredictor, AveragedPredictor
from narformer_pyg.spaces.nasbench201 import cell_indices, function_indices
from narformer_pyg.training import (
    PAPER,
    FitResult,
    PredictorModule,
    Recipe,
    fit,
    kendall_tau,
    label_scale,
    mape,
    resolve_device,
)
from narformer_pyg.training.callbacks import ResumableCheckpoint
from narformer_pyg.transforms import augment

RECIPE = Recipe(
    name="test",
    epochs=6,
    batch_size=4,
    learning_rate=1e-3,
    losses={"relative_mse": 1.0, "sequence_ranking": 0.1},
    model={"hidden_channels": 16, "num_blocks": 2, "dropout": 0.1},
)
NONE = RECIPE
EVERY_SECONDS = 0.0
COPIES = {**RECIPE.losses, "architecture_consistency": 0.5}
FIRST = dataclasses.replace(RECIPE, losses=COPIES, augmentation="first")
RANDOM = dataclasses.replace(FIRST, augmentation="random", num_copies=2)


@pytest.fixture(scope="module")
def dataset() -> NASBench201:
    return NASBench201(target="cifar10valid_valid_acc")


@pytest.fixture
def train_set(dataset: NASBench201) -> NASBench201:
    return dataset[dataset.get_split(10, seed=1).train]


def make_predictor(recipe: Recipe = RECIPE, seed: int = 0) -> ArchitecturePredictor:
    torch.manual_seed(seed)
    token_encoder = CellTokenEncoder()
    model = create_model("narformer_v2", token_encoder.out_channels, **recipe.model)
    return ArchitecturePredictor(token_encoder, model, scale=100.0)


def run(
    train_set: Any, recipe: Recipe = RECIPE, **kwargs: Any
) -> tuple[ArchitecturePredictor, FitResult]:
    predictor = make_predictor(recipe)
    kwargs = {"device": "cpu", "progress": False, **kwargs}
    if "checkpoint" in kwargs:  # after every epoch
        kwargs["checkpoint"] = ResumableCheckpoint(kwargs["checkpoint"], EVERY_SECONDS)
    result = fit(predictor, train_set, recipe, **kwargs)
    return result.predictor, result


def losses(result: FitResult) -> list[float]:
    return [entry["loss"] for entry in result.history]


def assert_equal_parameters(a: torch.nn.Module, b: torch.nn.Module) -> None:
    state_a, state_b = a.state_dict(), b.state_dict()
    assert state_a.keys() == state_b.keys()
    for name, value in state_a.items():
        assert torch.equal(value, state_b[name]), name


class Stop(Exception):
    """What interrupts a training in these tests."""


class StopAt(Callback):
    """Raises in the middle of an epoch."""

    def __init__(self, epoch: int, batch_idx: int = 1, error: type[BaseException] = Stop) -> None:
        self.epoch, self.batch_idx, self.error = epoch, batch_idx, error

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch_idx):
            raise self.error


class Watch(Callback):
    """Keeps the learning rate of every step and the parameters of every epoch."""

    def __init__(self) -> None:
        self.learning_rates: list[float] = []
        self.states: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.learning_rates.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append({k: v.clone() for k, v in pl_module.predictor.state_dict().items()})


def test_memorizes_32_cells(dataset: NASBench201) -> None:
    recipe = Recipe(
        name="memorize",
        epochs=150,
        batch_size=16,
        learning_rate=3e-3,
        losses={"relative_mse": 1.0, "sequence_ranking": 1.0, "pairwise_ranking": 0.2},
        loss_arguments={"pairwise_ranking": {"temperature": 0.02}},
        model={"hidden_channels": 64, "num_blocks": 3, "dropout": 0.0},
    )
    cells = dataset[dataset.get_split(32, seed=0).train]
    predictor, result = run(cells, recipe)
    assert kendall_tau(predictor.predict(cells), cells.y) >= 0.95
    assert losses(result)[-1] < losses(result)[0] / 3
    assert result.epochs == len(result.history) == recipe.epochs
    assert result.selected_epoch == recipe.epochs - 1
    assert result.seconds > 0
    assert not predictor.training


@pytest.mark.parametrize("recipe", [NONE, RANDOM], ids=["none", "random"])
def test_seed_decides_everything(train_set: NASBench201, recipe: Recipe) -> None:
    predictor, result = run(train_set, recipe, seed=3)
    torch.rand(5)  # whatever happened to the generator before
    again, again_result = run(train_set, recipe, seed=3)
    assert again_result.history == result.history
    assert_equal_parameters(predictor, again)

    _, other = run(train_set, recipe, seed=4)
    assert losses(other)[0] != losses(result)[0]


def test_list_of_graphs_equals_the_dataset(train_set: NASBench201) -> None:
    predictor, result = run(train_set)
    of_list, list_result = run([data.clone() for data in train_set])
    assert list_result.history == result.history
    assert_equal_parameters(predictor, of_list)


@pytest.mark.parametrize("recipe", [NONE, FIRST, RANDOM], ids=["none", "first", "random"])
def test_interrupted_and_resumed_run_is_exact(
    dataset: NASBench201, train_set: NASBench201, recipe: Recipe, tmp_path: Path
) -> None:
    kwargs: dict[str, Any] = {
        "val_set": dataset[100:120],
        "select": "best",
        "check_val_every_n_epoch": 2,
    }
    undisturbed, expected = run(train_set, recipe, checkpoint=tmp_path / "a.ckpt", **kwargs)

    path = tmp_path / "b.ckpt"
    with pytest.raises(Stop):
        run(train_set, recipe, checkpoint=path, callbacks=[StopAt(3)], **kwargs)
    torch.rand(7)
    resumed, result = run(train_set, recipe, checkpoint=path, resume=path, **kwargs)

    assert result.history == expected.history
    assert [entry["epoch"] for entry in result.history] == list(range(recipe.epochs))
    assert result.selected_epoch == expected.selected_epoch
    assert_equal_parameters(undisturbed, resumed)


def test_resuming_twice_and_after_the_end(train_set: NASBench201, tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    undisturbed, expected = run(train_set)
    kwargs: dict[str, Any] = {"checkpoint": path}
    with pytest.raises(Stop):
        run(train_set, callbacks=[StopAt(1)], **kwargs)
    with pytest.raises(Stop):
        run(train_set, callbacks=[StopAt(4)], resume=path, **kwargs)
    for _ in range(2):  # the second time there is nothing left to train
        resumed, result = run(train_set, resume=path, **kwargs)
        assert result.history == expected.history
        assert_equal_parameters(undisturbed, resumed)


def test_keyboard_interrupt_can_be_resumed(train_set: NASBench201, tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    undisturbed, expected = run(train_set)
    kwargs: dict[str, Any] = {"checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        run(train_set, callbacks=[StopAt(2, error=KeyboardInterrupt)], **kwargs)
    resumed, result = run(train_set, resume=path, **kwargs)
    assert result.history == expected.history
    assert_equal_parameters(undisturbed, resumed)


def test_checkpoints_do_not_change_the_training(train_set: NASBench201, tmp_path: Path) -> None:
    predictor, result = run(train_set)
    saved, saved_result = run(train_set, checkpoint=tmp_path / "training.ckpt")
    assert saved_result.history == result.history
    assert_equal_parameters(predictor, saved)


def test_validation_does_not_change_the_training(
    dataset: NASBench201, train_set: NASBench201
) -> None:
    predictor, result = run(train_set)
    validated, other = run(train_set, val_set=dataset[100:120], check_val_every_n_epoch=1)
    assert losses(other) == losses(result)
    assert_equal_parameters(predictor, validated)


def test_failed_save_leaves_the_old_checkpoint(
    train_set: NASBench201, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.ckpt"
    undisturbed, expected = run(train_set)
    save = Trainer.save_checkpoint
    contents: list[bytes] = []

    def full_disk(self: Trainer, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        if self.current_epoch == 3:
            contents.append(path.read_bytes())
            Path(filepath).write_bytes(b"half of a checkpoint")
            raise OSError("No space left on device")
        save(self, filepath, *args, **kwargs)

    kwargs: dict[str, Any] = {"checkpoint": path}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(train_set, **kwargs)
    assert contents == [path.read_bytes()]
    assert [file.name for file in tmp_path.iterdir()] == ["training.ckpt"]
    resumed, result = run(train_set, resume=path, **kwargs)
    assert result.history == expected.history
    assert_equal_parameters(undisturbed, resumed)


def test_time_between_checkpoints(
    train_set: NASBench201, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    save = Trainer.save_checkpoint

    def count(self: Trainer, *args: Any, **kwargs: Any) -> None:
        epochs.append(self.current_epoch)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", count)
    path = tmp_path / "training.ckpt"
    fit(make_predictor(), train_set, RECIPE, checkpoint=path, device="cpu", progress=False)
    assert epochs == [0, RECIPE.epochs - 1]  # the first and the last are always written
    epochs.clear()
    run(train_set, checkpoint=path)
    assert epochs == list(range(RECIPE.epochs))
    assert ResumableCheckpoint(path).every_seconds == 30.0


def test_best_epoch_is_that_of_the_validation_tau(
    dataset: NASBench201, train_set: NASBench201
) -> None:
    watch = Watch()
    val_set = dataset[100:130]
    # A learning rate that jumps about, so that the last epoch is not the best one.
    recipe = dataclasses.replace(RECIPE, epochs=8, learning_rate=0.03)
    predictor, result = run(
        train_set,
        recipe,
        val_set=val_set,
        select="best",
        check_val_every_n_epoch=2,
        callbacks=[watch],
    )
    validated = [entry["epoch"] for entry in result.history if "val_kendall_tau" in entry]
    assert validated == [1, 3, 5, 7]
    taus = {}
    for epoch in (1, 3, 5, 7):
        other = make_predictor(recipe)
        other.load_state_dict(watch.states[epoch])
        taus[epoch] = kendall_tau(other.predict(val_set), val_set.y)
        assert result.history[epoch]["val_kendall_tau"] == pytest.approx(taus[epoch], abs=0.01)
    assert result.selected_epoch == max(taus, key=taus.__getitem__)
    for name, value in predictor.state_dict().items():
        assert torch.equal(value, watch.states[result.selected_epoch][name])

    last, last_result = run(
        train_set,
        recipe,
        val_set=val_set,
        check_val_every_n_epoch=2,
        callbacks=[watch_last := Watch()],
    )
    assert last_result.history == result.history
    assert last_result.selected_epoch == 7
    for name, value in last.state_dict().items():
        assert torch.equal(value, watch_last.states[-1][name])
    if result.selected_epoch == 7:
        pytest.fail("the last epoch is the best one: the test shows nothing")


def test_learning_rate_rises_and_falls(train_set: NASBench201) -> None:
    watch = Watch()
    recipe = dataclasses.replace(RECIPE, epochs=10, batch_size=5, learning_rate=2e-3, warmup=0.25)
    run(train_set, recipe, callbacks=[watch])
    # 2 batches in each of 10 epochs; 5 of these steps rise, 15 fall.
    rise = [2e-3 * k / 5 for k in (1, 2, 3, 4, 5)]
    fall = [2e-3 * k / 15 for k in range(15, 0, -1)]
    assert watch.learning_rates == pytest.approx(rise + fall)


@pytest.mark.parametrize("augmentation", ["first", "random"])
def test_loss_of_the_paper(train_set: NASBench201, augmentation: Any) -> None:
    recipe = dataclasses.replace(
        PAPER, augmentation=augmentation, model={**RECIPE.model, "dropout": 0.0}
    )
    graphs = [train_set[i] for i in range(len(train_set))]
    loader = DeviceLoader(
        graphs + augment(graphs, 1, mode=augmentation, seed=0),
        batch_sampler=PairedBatchSampler(len(graphs), 8, seed=0),
    )
    predictor = make_predictor(recipe).train()
    module = PredictorModule(predictor, recipe, loader)
    batch = next(iter(loader))
    assert batch.num_graphs == 16

    torch.manual_seed(5)
    loss = module.training_step(batch, 0)

    torch.manual_seed(5)
    permutation = torch.randperm(16).tolist()
    p = (predictor(batch)[:, 0] / 100.0).tolist()
    y = (batch.y[:, 0] / 100.0).tolist()
    assert y[:8] == y[8:]  # a copy has the label of its original
    mse = sum((p[i] / y[i] - 1) ** 2 for i in range(16)) / 16
    sr = sum(abs((p[i] - p[j]) - (y[i] - y[j])) for i, j in enumerate(permutation)) / 16
    ac = sum(abs(p[i + 8] - p[i]) for i in range(8)) / 8
    assert min(mse, sr, ac) > 1e-6
    assert loss.item() == pytest.approx(mse + 0.1 * sr + 0.5 * ac, rel=1e-4)


def test_equivalent_cells(train_set: NASBench201) -> None:
    recipe = dataclasses.replace(RECIPE, augmentation="equivalent", batch_size=3)
    functions = function_indices()
    wanted = sorted(
        (int(functions[i]), train_set[k].y.item())
        for k, i in enumerate(cell_indices(list(train_set)).tolist())
    )
    epochs: list[list[tuple[int, float]]] = []
    cells: list[int] = []

    class Record(Callback):
        def on_train_epoch_start(self, *args: Any) -> None:
            epochs.append([])

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Batch, i: int) -> None:
            for data, index in zip(
                batch.to_data_list(), cell_indices(batch.to_data_list()).tolist(), strict=True
            ):
                cells.append(index)
                epochs[-1].append((int(functions[index]), data.y.item()))

    predictor = make_predictor(recipe)
    fit(predictor, train_set, recipe, device="cpu", progress=False, callbacks=[Record()])
    assert len(epochs) == recipe.epochs
    # Every cell is there once, by itself or by another one with its function, with its label.
    assert all(sorted(epoch) == wanted for epoch in epochs)
    assert len(set(cells)) > len(train_set)


def test_least_number_of_steps(train_set: NASBench201) -> None:
    steps = -(-len(train_set) // RECIPE.batch_size)
    recipe = dataclasses.replace(RECIPE, epochs=1, min_steps=2 * steps + 1)
    result = fit(make_predictor(recipe), train_set, recipe, device="cpu", progress=False)
    assert result.epochs == len(result.history) == 3


def test_calibrates_to_the_training_graphs(train_set: NASBench201) -> None:
    plain, _ = run(train_set)
    calibrated, _ = run(train_set, dataclasses.replace(RECIPE, calibrate=True))
    assert not torch.equal(calibrated.predict(train_set), plain.predict(train_set))
    plain.calibrate(train_set)
    torch.testing.assert_close(calibrated.predict(train_set), plain.predict(train_set))


def test_validation_sees_what_is_saved(dataset: NASBench201, train_set: NASBench201) -> None:
    recipe = dataclasses.replace(RECIPE, augmentation="equivalent", calibrate=True)
    val_set = dataset[100:130]
    predictor, result = run(train_set, recipe, val_set=val_set)
    assert isinstance(predictor, AveragedPredictor)
    prediction = predictor.predict(val_set)
    last = result.history[-1]
    assert last["val_mape"] == pytest.approx(mape(prediction, val_set.y), rel=1e-4)
    assert last["val_kendall_tau"] == pytest.approx(kendall_tau(prediction, val_set.y), abs=1e-6)


def test_labels_that_were_not_measured(dataset: NASBench201) -> None:
    graphs = [data.clone() for data in dataset[:12]]
    for i, data in enumerate(graphs):
        data.y = torch.cat([data.y, data.y / 2], dim=1)
        data.y[0, i % 2] = math.nan
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    model = create_model("narformer_v2", 128, hidden_channels=16, num_blocks=2, out_channels=2)
    predictor = ArchitecturePredictor(encoder, model, scale=[100.0, 50.0])
    recipe = dataclasses.replace(RECIPE, calibrate=True)
    result = fit(
        predictor, graphs, recipe, val_set=graphs, device="cpu", progress=False,
        check_val_every_n_epoch=3,
    )  # fmt: skip
    assert all(math.isfinite(value) for entry in result.history for value in entry.values())
    assert predictor.predict(graphs).isfinite().all()


class SquaredLoss(torch.nn.Module):
    """A loss from outside of the package."""

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs().pow(self.power).mean()


def test_a_loss_of_ones_own(train_set: NASBench201) -> None:
    register_loss("test_squared")(SquaredLoss)
    recipe = dataclasses.replace(
        RECIPE, losses={"test_squared": 2.0}, loss_arguments={"test_squared": {"power": 3.0}}
    )
    loader = DeviceLoader(train_set, 4)
    predictor = make_predictor(recipe).eval()  # no dropout
    batch = next(iter(loader))
    loss = PredictorModule(predictor, recipe, loader).training_step(batch, 0)
    error = predictor.forward_scaled(batch) - batch.y / 100
    assert loss.item() == pytest.approx(2 * float(error.abs().pow(3).mean()), rel=1e-5)
    _, result = run(train_set, recipe)
    assert losses(result)[-1] < losses(result)[0]


def test_weights_of_losses(train_set: NASBench201) -> None:
    recipe = dataclasses.replace(
        RECIPE,
        losses={"relative_mse": 0.5, "sequence_ranking": 0.0, "pairwise_ranking": 0.2},
        loss_arguments={"pairwise_ranking": {"temperature": 0.1}},
    )
    loader = DeviceLoader(train_set, 4)
    predictor = make_predictor(recipe).eval()
    batch = next(iter(loader))
    loss = PredictorModule(predictor, recipe, loader).training_step(batch, 0)
    p, y = (predictor(batch)[:, 0] / 100).tolist(), (batch.y[:, 0] / 100).tolist()
    mse = sum((a / b - 1) ** 2 for a, b in zip(p, y, strict=True)) / 4
    pairs = [
        math.log1p(math.exp(-(p[i] - p[j]) / 0.1))
        for i, j in itertools.permutations(range(4), 2)
        if y[i] > y[j]
    ]
    assert loss.item() == pytest.approx(0.5 * mse + 0.2 * sum(pairs) / len(pairs), rel=1e-4)


def test_precision(train_set: NASBench201) -> None:
    predictor, result = run(train_set, precision="bf16-mixed")
    exact, exact_result = run(train_set)
    assert all(parameter.dtype == torch.float32 for parameter in predictor.parameters())
    assert all(math.isfinite(loss) for loss in losses(result))
    assert losses(result) != losses(exact_result)
    assert losses(result) == pytest.approx(losses(exact_result), rel=0.3)
    prediction = predictor.predict(train_set)
    torch.testing.assert_close(prediction, exact.predict(train_set), rtol=0.2, atol=0.0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradient_clipping(train_set: NASBench201, precision: str) -> None:
    clipped = dataclasses.replace(RECIPE, gradient_clip=1e-6)
    _, result = run(train_set, clipped, precision=precision)
    _, free = run(train_set, precision=precision)
    assert losses(result)[-1] != losses(free)[-1]
    assert all(math.isfinite(loss) for loss in losses(result))


def test_loss_that_is_no_number(train_set: NASBench201) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, warmup=0.0)
    with pytest.raises(FloatingPointError, match=r"'learning_rate' \(it was 1e\+30\)"):
        run(train_set, recipe)


def test_label_scale() -> None:
    assert label_scale("accuracy", torch.tensor([50.0, 60.0])) == [100.0]
    assert label_scale("latency", torch.tensor([2.0, 6.0, math.nan])) == [4.0]
    labels = torch.tensor([[50.0, 2.0], [math.nan, 6.0]])
    assert label_scale(["accuracy", "latency"], labels) == [100.0, 4.0]


# Errors.


def with_label(graphs: NASBench201, position: int, value: float) -> list[Data]:
    listed = [data.clone() for data in graphs]
    listed[position].y = torch.tensor([[value]])
    return listed


@pytest.mark.parametrize("value", [math.inf, 0.0, -1.0])
@pytest.mark.parametrize("argument", ["train_set", "val_set"])
def test_wrong_label(train_set: NASBench201, argument: str, value: float) -> None:
    wrong = with_label(train_set, 3, value)
    kwargs = {"train_set": train_set, argument: wrong}
    expected = rf"labels 'y' of '{argument}' to be positive.*\(got \[{value}\] in graph 3"
    with pytest.raises(ValueError, match=expected):
        run(**kwargs)


@pytest.mark.parametrize("position", [0, 4, 9])
def test_unlabelled_graph(train_set: NASBench201, position: int) -> None:
    graphs = [data.clone() for data in train_set]
    del graphs[position].y
    with pytest.raises(ValueError, match=r"'train_set' to have labels 'y'.*got no labels in graph"):
        run(graphs)


def test_wrong_number_of_labels() -> None:
    graphs = NASBench201(target=["cifar10_test_acc", "cifar100_test_acc"])[:5]
    with pytest.raises(ValueError, match=r"'y' of shape \[1, 1\].*got shape \[1, 2\] in graph 0"):
        run(graphs)


def test_no_label_of_a_target(train_set: NASBench201) -> None:
    graphs = [data.clone() for data in train_set]
    for data in graphs:
        data.y = torch.full_like(data.y, math.nan)
    with pytest.raises(ValueError, match=r"'train_set' to have labels of every target.*target 0"):
        run(graphs)


def test_empty_set(train_set: NASBench201) -> None:
    with pytest.raises(ValueError, match=r"'train_set' to hold at least one graph \(got none\)"):
        run([])
    with pytest.raises(ValueError, match=r"'val_set' to hold at least one graph \(got none\)"):
        run(train_set, val_set=[])


@pytest.mark.parametrize("y", [0.9, torch.tensor(0.9), torch.ones(1, 2), torch.ones(1)])
def test_labels_of_another_form(train_set: NASBench201, y: Any) -> None:
    graphs = [data.clone() for data in train_set]
    graphs[3].y = y
    with pytest.raises(ValueError, match=r"'y' of shape \[1, 1\].*in graph 3"):
        run(graphs)


def test_edge_that_leaves_its_graph(train_set: NASBench201) -> None:
    graphs = [data.clone() for data in train_set]
    graphs[2].edge_index[0, 0] = 11
    with pytest.raises(ValueError, match=r"'edge_index' of graph 2.*0 to 7 \(got the edge \[11,"):
        run(graphs)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"seed": -1}, r"'seed' to be between 0 and .*\(got -1\)"),
        ({"seed": 2**70}, "'seed' to be between 0"),
        ({"seed": "a"}, r"'seed' to be an integer \(got 'a'\)"),
        ({"precision": "16-mixed"}, r"'precision' to be '32-true' or 'bf16-mixed' on the CPU"),
    ],
)
def test_wrong_argument(train_set: NASBench201, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        run(train_set, **arguments)


def test_checkpoint_that_cannot_be_written(train_set: NASBench201, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch = Watch()
    with pytest.raises(OSError, match="file"):
        run(train_set, checkpoint=tmp_path / "file" / "training.ckpt", callbacks=[watch])


def test_short_training_is_validated_too(dataset: NASBench201, train_set: NASBench201) -> None:
    _, result = run(train_set, val_set=dataset[100:120], select="best")
    taus = [entry["val_kendall_tau"] for entry in result.history if "val_kendall_tau" in entry]
    assert len(taus) == 1  # 6 epochs, fewer than the 10 between two validations
    assert result.selected_epoch == RECIPE.epochs - 1


def test_validation_needs_an_order(train_set: NASBench201) -> None:
    with pytest.raises(ValueError, match=r"'val_set' to have at least two different labels"):
        run(train_set, val_set=train_set[:1])


def test_wrong_selection(train_set: NASBench201) -> None:
    with pytest.raises(ValueError, match=r"'select' to be 'last' or 'best' \(got 'first'\)"):
        run(train_set, select="first")
    with pytest.raises(ValueError, match=r"'val_set' to be given with select='best'.*got None"):
        run(train_set, select="best")


@pytest.mark.parametrize("device", ["tpu", "cpuu", "mps", "meta", "", "cuda:x"])
def test_unknown_device(train_set: NASBench201, device: str) -> None:
    with pytest.raises(ValueError, match=rf"'auto', 'cpu', 'cuda' or 'cuda:N' \(got '{device}'\)"):
        run(train_set, device=device)


def test_device_without_cuda(train_set: NASBench201, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=rf"'device' to be available \(got '{device}'.*sees 0"):
            run(train_set, device=device)


def foreign_checkpoint(path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 3}, path)


def predictor_file(path: Path) -> None:
    (make_predictor().save_pretrained(path.parent) / "model.safetensors").rename(path)


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("epoch,loss\n0,1.0\n")


def bare_tensor(path: Path) -> None:
    torch.save(torch.ones(3), path)


@pytest.mark.parametrize("write", [foreign_checkpoint, predictor_file, empty, text, bare_tensor])
def test_resume_from_a_foreign_file(
    train_set: NASBench201, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "training.ckpt"
    write(path)
    with pytest.raises(CheckpointError, match=r"'resume'.*training\.ckpt"):
        run(train_set, resume=path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 5}, "seed: 0 there, 5 here"),
        ({"precision": "bf16-mixed"}, "precision: 32-true there, bf16-mixed here"),
    ],
)
def test_resume_with_other_arguments(
    train_set: NASBench201, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "training.ckpt"
    run(train_set, checkpoint=path)
    with pytest.raises(CheckpointError, match=expected):
        run(train_set, resume=path, **change)


def test_resume_with_other_graphs_or_another_model(
    dataset: NASBench201, train_set: NASBench201, tmp_path: Path
) -> None:
    path = tmp_path / "training.ckpt"
    run(train_set, checkpoint=path)
    with pytest.raises(CheckpointError, match="num_graphs: 10 there, 9 here"):
        run(train_set[:9], resume=path)
    with pytest.raises(CheckpointError, match="labels_sha256"):
        run(dataset[:10], resume=path)
    encoder = CellTokenEncoder()
    other = ArchitecturePredictor(encoder, create_model("gcn", 128, hidden_channels=16), scale=100)
    with pytest.raises(CheckpointError, match="model_arguments"):
        fit(other, train_set, RECIPE, resume=path, device="cpu", progress=False)


def test_resume_from_a_missing_file(train_set: NASBench201, tmp_path: Path) -> None:
    for path in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"Expected 'resume' to be .*\(got '"):
            run(train_set, resume=path)


def test_resume_from_a_damaged_file(train_set: NASBench201, tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    run(train_set, checkpoint=path)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:middle], content[:100], b"\0" * 200 + content[200:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="'resume'"):
            run(train_set, resume=path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"learning_rate": 2e-3}, r"learning_rate: 0\.001 there, 0\.002 here"),
        ({"epochs": 7}, "epochs: 6 there, 7 here"),
        ({"model": {**RECIPE.model, "num_blocks": 3}}, "model: .*'num_blocks': 2.*there"),
    ],
)
def test_resume_with_another_recipe(
    train_set: NASBench201, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "training.ckpt"
    with pytest.raises(Stop):
        run(train_set, checkpoint=path, callbacks=[StopAt(1)])
    with pytest.raises(CheckpointError, match=rf"'resume' to be of the same training .*{expected}"):
        run(train_set, dataclasses.replace(RECIPE, **change), resume=path)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_parameters_keep_their_type(train_set: NASBench201, precision: str) -> None:
    predictor, result = run(train_set, dataclasses.replace(RECIPE, epochs=1), precision=precision)
    assert len(result.history) == 1
    assert {p.dtype for p in predictor.parameters()} == {torch.float32}
    assert predictor.scale.dtype == torch.float32
    assert predictor.predict(train_set).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_an_exception_leaves_the_mode(train_set: NASBench201, training: bool) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("stop here")

    predictor = make_predictor().train(training)
    with pytest.raises(RuntimeError, match="stop here"):
        fit(predictor, train_set, RECIPE, device="cpu", progress=False, callbacks=[Stop()])
    assert predictor.training is training


def test_arguments_of_the_recipe(train_set: NASBench201) -> None:
    with pytest.raises(TypeError, match=r"'fit' sets itself \(got max_epochs, strategy\)"):
        run(train_set, max_epochs=1, strategy="ddp")
