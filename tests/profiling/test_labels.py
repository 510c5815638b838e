from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from narformer_pyg.profiling import LatencyLabel, compare_labels, read_labels, write_labels

LABEL = LatencyLabel(
    file="a.onnx", family="resnet", latency_ms=1.5, unit="ms", statistic="minimum", passes=3,
    runs=60, pass_spread=0.02, batch=1, precision="float32", weights="random",
    input_shapes="input:1x3x96x96 mask:1x8", provider="CPUExecutionProvider", threads=1,
    onnxruntime="1.32.0", processor='A "fast", new processor',
)  # fmt: skip


def make_label(file: str, latency_ms: float, **changes: Any) -> LatencyLabel:
    return dataclasses.replace(LABEL, file=file, latency_ms=latency_ms, **changes)


def test_labels_survive_the_file(tmp_path: Path) -> None:
    labels = [LABEL, make_label("folder/b, c.onnx", 0.25)]
    write_labels(labels, tmp_path / "labels.csv")
    assert read_labels(tmp_path / "labels.csv") == labels
    header, _, second = (tmp_path / "labels.csv").read_text("utf-8").splitlines()
    assert header.split(",") == [field.name for field in dataclasses.fields(LatencyLabel)]
    assert second.startswith('"folder/b, c.onnx",resnet,0.25,ms,minimum,3,60,0.02,1,float32,')
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv"}


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")])
def test_latencies_are_positive(latency: float) -> None:
    with pytest.raises(ValueError, match=r"latency of 'a.onnx' to be positive \(got"):
        make_label("a.onnx", latency)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch,precision", "batch,kind", r"columns of a latency table \(missing: precision\)"),
        ("b.onnx,resnet,1.5", "b.onnx,resnet,0.0", r"labels.csv, line 3: .*'b.onnx' to be positiv"),
        ("b.onnx,resnet,1.5", "b.onnx,resnet,fast", r"labels.csv, line 3: .*'fast'"),
        ("b.onnx,resnet,", "b.onnx\n", r"labels.csv, line 3: "),  # cut in the middle of a line
        ("b.onnx,resnet", "b" * 200_000, r"labels.csv, line .: field larger than"),
    ],
)
def test_bad_tables_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write_labels([LABEL, make_label("b.onnx", 1.5)], path)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ValueError, match=message):
        read_labels(path)


def test_compare_labels() -> None:
    first = [make_label("a.onnx", 1.0), make_label("b.onnx", 2.0), make_label("c.onnx", 4.0)]
    second = [make_label("c.onnx", 5.0), make_label("b.onnx", 1.9), make_label("d.onnx", 1.0)]
    result = compare_labels(first, second)  # +25 % and -5 %
    assert (result.num_models, result.different_settings) == (2, ())
    measures = (result.mape, result.median, result.bias, result.within_10_percent)
    assert measures == pytest.approx((15.0, 15.0, 10.0, 50.0))
    again = make_label("a.onnx", 1.0, threads=2, processor="another")
    assert compare_labels(first, [again]).different_settings == ("threads", "processor")
    with pytest.raises(ValueError, match="files in common"):
        compare_labels(first, second[2:])
