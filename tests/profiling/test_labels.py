from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from narformer_pyg.profiling import LatencyLabel, compare_labels, read_labels, write_labels
from narformer_pyg.profiling.measure import processor_name


def make_label(file: str = "a.onnx", latency_ms: float = 1.5, threads: int = 1) -> LatencyLabel:
    return LatencyLabel(
        file=file,
        family="resnet",
        latency_ms=latency_ms,
        unit="ms",
        statistic="minimum",
        passes=3,
        runs=60,
        pass_spread=0.02,
        batch=1,
        precision="float32",
        weights="random",
        input_shapes="input:1x3x96x96 mask:1x8",
        provider="CPUExecutionProvider",
        threads=threads,
        onnxruntime="1.32.0",
        processor='A "fast", new processor',
    )


def test_labels_survive_the_file(tmp_path: Path) -> None:
    labels = [make_label(), make_label("folder/b, c.onnx", 0.25)]
    write_labels(labels, tmp_path / "labels.csv")
    assert read_labels(tmp_path / "labels.csv") == labels
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == [
        "file", "family", "latency_ms", "unit", "statistic", "passes", "runs", "pass_spread",
        "batch", "precision", "weights", "input_shapes", "provider", "threads", "onnxruntime",
        "processor",
    ]  # fmt: skip
    assert lines[1][:4] == ["folder/b, c.onnx", "resnet", "0.25", "ms"]
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv"}


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")])
def test_latencies_are_positive(latency: float) -> None:
    with pytest.raises(ValueError, match=r"latency of 'a.onnx' to be positive \(got"):
        make_label(latency_ms=latency)


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,latency_ms\na.onnx,1.0\n", "utf-8")
    with pytest.raises(ValueError, match=r"columns of a latency table \(missing: batch, family"):
        read_labels(path)
    write_labels([make_label(), make_label("b.onnx")], path)
    text = path.read_text("utf-8")
    path.write_text(text.replace("b.onnx,resnet,1.5", "b.onnx,resnet,0.0"), "utf-8")
    with pytest.raises(ValueError, match=r"labels.csv, line 3: .*'b.onnx' to be positive"):
        read_labels(path)
    path.write_text(text.replace("b.onnx,resnet,1.5", "b.onnx,resnet,fast"), "utf-8")
    with pytest.raises(ValueError, match=r"labels.csv, line 3: .*'fast'"):
        read_labels(path)
    path.write_text(text + "c.onnx,resnet\n", "utf-8")  # a file cut in the middle of a line
    with pytest.raises(ValueError, match=r"labels.csv, line 4"):
        read_labels(path)


def test_compare_labels() -> None:
    first = [make_label("a.onnx", 1.0), make_label("b.onnx", 2.0), make_label("c.onnx", 4.0)]
    second = [make_label("c.onnx", 5.0), make_label("b.onnx", 1.9), make_label("d.onnx", 1.0)]
    result = compare_labels(first, second)
    assert result.num_models == 2
    assert result.mape == pytest.approx(15.0)  # +25 % and -5 %
    assert result.median == pytest.approx(15.0)
    assert result.bias == pytest.approx(10.0)
    assert result.within_10_percent == pytest.approx(50.0)
    assert result.different_settings == ()
    again = dataclasses.replace(first[0], threads=2, processor="another")
    assert compare_labels(first, [again]).different_settings == ("threads", "processor")
    with pytest.raises(ValueError, match="files in common"):
        compare_labels(first, second[2:])


def test_processor_has_a_name() -> None:
    assert processor_name("CPUExecutionProvider").strip()
