from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import narformer_pyg
from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import kernels
from narformer_pyg.spaces.nasbench201 import function_indices
from narformer_pyg.training import kendall_tau

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
import common  # noqa: E402
import tables  # noqa: E402


def run(
    script: str, *arguments: str, check: bool = True, threads: bool = True
) -> subprocess.CompletedProcess[str]:
    package = Path(narformer_pyg.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [
            sys.executable,
            str(FOLDER / script),
            *(("--threads", "1") if threads else ()),
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def measured(script: str, tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "out.csv"
    run(script, "--quick", "--out", str(out), *arguments)
    results = common.read_results(out)
    assert results["environment"]["torch"]
    assert results["settings"]["quick"] is True
    return results


def test_loader(tmp_path: Path) -> None:
    results = measured("loader.py", tmp_path)
    rates = results["batches_per_second"]
    assert rates["DeviceLoader"]["median"] > rates["DataLoader"]["median"] > 0
    assert results["ratio"]["of_medians"] > 1


@pytest.mark.skipif(importlib.util.find_spec("torch_scatter") is None, reason="needs torch-scatter")
def test_scatter(tmp_path: Path) -> None:
    rows = measured("scatter.py", tmp_path)["rows"]
    assert len(rows) == 10
    assert all(row["with"]["min"] > 0 and row["without"]["min"] > 0 for row in rows.values())


def test_train_step(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    for _ in range(2):  # the rows of a processor are replaced
        run("train_step.py", "--quick", "--bf16", "--out", str(out))
    rows = common.read_rows(out).values()
    forms = {"dense", "kernels", "plain", "bf16", *kernels.NAMES}
    assert len(rows) == 2 * len(forms)
    for what in ("training step", "inference"):
        assert {row["form"] for row in rows if row["what"] == what} == forms
    assert all(0 < row["p10"] <= row["p90"] and row["seconds"] > 0 for row in rows)


def test_gpu(tmp_path: Path) -> None:
    """All sections on the CPU but the compiler's, which takes a minute."""
    out = tmp_path / "out.csv"
    sections = ("steps", "layer", "trainings", "predictions")
    done = run("gpu.py", "--quick", "--device", "cpu", "--out", str(out), "--sections", *sections)
    assert "failed" not in done.stdout
    rows = common.read_rows(out).values()
    assert {row["section"] for row in rows} == set(sections)
    assert all(row["seconds"] > 0 for row in rows)
    forms = {row["form"] for row in rows if row["case"] == "cells 2, training step"}
    assert {"dense float32", "eager float32", "captured TF32", "captured bf16"} <= forms


def test_calls() -> None:
    """The bar of a training step; the number depends on no clock."""
    from calls import calls_per_step

    assert 100 < calls_per_step("quick", num_cells=64) <= 700


def test_layer(tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    results = measured("layer.py", tmp_path, "--plot", str(plot))
    assert plot.read_bytes()[:4] == b"\x89PNG"
    layers = {row["layer"] for row in results["rows"].values()}
    assert {"GraphAidedAttentionConv", "GATv2Conv", "dense"} <= layers
    assert all(row["seconds"]["min"] > 0 for row in results["rows"].values())


def test_dense_memory_grows_with_the_square(tmp_path: Path) -> None:
    results = measured(
        "layer.py", tmp_path, "--num_nodes", "3000", "--layers", "dense", "GraphAidedAttentionConv"
    )
    peak = {row["layer"]: row["peak_bytes"] for row in results["rows"].values()}
    assert peak["dense"] > 4 * 3000**2
    assert peak["GraphAidedAttentionConv"] < peak["dense"] / 2


def test_predict(tmp_path: Path) -> None:
    codes = tmp_path / "codes.npz"
    # input -> operation -> output, for each of the three operations
    np.savez(
        codes,
        vertices=np.full(3, 3, dtype=np.int8),
        edge_bits=np.full(3, 0b101, dtype=np.int32),
        op_code=np.arange(3, dtype=np.int16),
    )
    results = measured("predict.py", tmp_path, "--nasbench101", str(codes))
    assert results["spaces"]["NAS-Bench-201"]["num_cells"]["median"] == 200
    assert results["spaces"]["NAS-Bench-101"]["num_cells"]["median"] == 3
    single = results["single"]
    assert all(s["min"] > 0 for s in single["seconds_per_cell"].values())
    assert single["times_as_fast_as_dense"]["of_medians"] > 0


def test_nasbench201(tmp_path: Path) -> None:
    results, work = tmp_path / "results.csv", tmp_path / "work"
    flags = ("--out", str(results), "--work", str(work))
    chosen = ("--groups", "accuracy", "attention", "--recipes", "quick", "--seeds", "0")
    few = ("--sizes", "781", "--epochs", "1", "--models", "narformer_v2")
    first = run("nasbench201.py", *flags, *chosen, *few).stdout
    names = [
        "narformer_v2_quick_781_seed0",
        "narformer_v2_softmax_quick_781_seed0",
        "narformer_v2_global_softmax_quick_781_seed0",
        "narformer_v2_quick_cifar10_estimated_acc_781_seed0",
    ]
    assert [line.split(":")[0] for line in first.splitlines()] == names
    rows = common.read_rows(results)
    assert set(rows) == set(names)
    assert not any("history" in name for name in results.read_text("utf-8").split(","))
    metrics = rows[names[2]]["metrics"]
    prediction = torch.from_numpy(np.load(work / names[2] / "predictions.npy"))
    dataset = NASBench201()
    tau = kendall_tau(prediction, dataset.labels("cifar10_test_acc"))
    assert metrics["all cells"]["kendall_tau"] == pytest.approx(tau, rel=1e-5)
    assert metrics["all cells"]["kendall_tau_ties_broken"] <= tau + 1e-6
    functions = function_indices()
    unseen = ~torch.isin(functions, functions[dataset.get_split(781, 0, 0).train])
    tau = kendall_tau(prediction[unseen], dataset.labels("cifar10_test_acc")[unseen])
    assert metrics["unseen functions"]["kendall_tau"] == pytest.approx(tau, rel=1e-5)
    # A run that has its row is left alone.
    assert run("nasbench201.py", *flags, *chosen, *few).stdout == ""
    listed = run("nasbench201.py", *flags, *chosen, *few, "--list").stdout
    assert listed.count("done") == len(listed.splitlines()) == len(names)

    ensemble = "narformer_v2_ensemble_best_1563_seed0"
    run("nasbench201.py", *flags, "--groups", "ensemble", "--seeds", "0", "--epochs", "1")
    row = common.read_rows(results)[ensemble]
    alone = [
        torch.from_numpy(np.load(path))
        for path in sorted((work / ensemble).glob("network*/predictions.npy"))
    ]
    label = dataset.labels("cifar10_test_acc")
    taus = [kendall_tau(values, label) for values in alone]
    listed_taus = [network["kendall_tau"] for network in row["networks"].values()]
    assert listed_taus == pytest.approx(taus, rel=1e-5)
    assert len(set(taus)) == 3
    tau = kendall_tau(torch.stack(alone).mean(dim=0), label)
    assert row["metrics"]["all cells"]["kendall_tau"] == pytest.approx(tau, rel=1e-5)

    out = tmp_path / "maps.csv"
    run("attention_maps.py", "--predictors", str(work), "--num_cells", "5", "--out", str(out))
    maps = common.read_results(out)["attention"]
    assert [len(blocks) for blocks in maps.values()] == [6, 6, 6]
    assert all(block["linear"]["self"] == 0 for block in maps["graph-aided"].values())
    assert out.with_suffix(".png").is_file()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    content = {"name": "a, b", "number": 0.125, "none": None, "deep": {"list": [1, 2]}}
    common.write_row(path, "one", content)
    common.write_row(path, "two", {"other": True})
    common.write_row(path, "one", {**content, "number": 2})
    expected = {**content, "number": 2, "deep": {"list": {"0": 1, "1": 2}}}
    assert common.read_rows(path) == {"one": expected, "two": {"other": True}}


@pytest.mark.parametrize("path", tables.READMES, ids=lambda path: path.parent.name)
def test_tables_say_what_the_results_say(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(tables.MARKER.findall(text)) == text.count("<!-- table:") >= 1
    assert tables.replaced(text) == text, "run 'python benchmarks/tables.py --write'"


def test_a_changed_number_is_found() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    changed = text.replace("0.8735 ± 0.0026", "0.8736 ± 0.0026")
    assert changed != text
    assert tables.replaced(changed) == text


def test_ties_broken_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from nasbench201 import measure

    generator = torch.Generator().manual_seed(0)
    label = torch.rand(1000, generator=generator) + 1.0
    prediction = (label + 0.3 * torch.rand(1000, generator=generator)).mul(20).round() / 20
    cells = torch.arange(1000)
    metrics = measure(prediction, label, cells)
    broken = [
        measure(prediction + 1e-4 * torch.rand(1000, generator=generator), label, cells)
        for _ in range(20)
    ]
    mean = sum(other["kendall_tau"] for other in broken) / len(broken)
    assert metrics["kendall_tau_ties_broken"] == pytest.approx(mean, abs=1e-3)
    assert metrics["kendall_tau"] - mean > 5e-3


def test_nasbench201_leaves_locked_runs_to_others(tmp_path: Path) -> None:
    name = "gcn_quick_78_seed0"
    out = tmp_path / "out.csv"
    flags = ("--out", str(out), "--work", str(tmp_path), "--epochs", "1", "--sizes", "78")
    chosen = ("--groups", "accuracy", "--recipes", "quick", "--models", "gcn", "--seeds", "0")
    with (tmp_path / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("nasbench201.py", *flags, *chosen).stdout == ""
        assert not out.exists()
    assert name in run("nasbench201.py", *flags, *chosen).stdout


def test_transformer_cost(tmp_path: Path) -> None:
    results = measured("transformer_cost.py", tmp_path)
    assert set(results["batch_sizes"]) == {"1", "4"}
    for size in results["batch_sizes"].values():
        assert all(s["min"] > 0 for s in size["seconds_per_cell"].values())


def test_torchvision_models(tmp_path: Path) -> None:
    results = measured("torchvision_models.py", tmp_path)
    assert set(results["networks"]) == {"cnn", "transformer"}
    summary = results["summary"]
    assert summary["compared_by_operators"] == summary["same_operator_counts"] == 2
    for kind in ("cnn", "transformer"):
        assert summary[f"{kind}_files_compared_by_flops"] == 2
        assert summary[f"{kind}_flops_largest_deviation_percent"] == 0
    assert summary["from_torch_compared"] == summary["from_torch_same_graph"] == 2
    for network in results["networks"].values():
        for exporter in ("dynamo", "legacy"):
            assert network[exporter]["wrong_shapes"] == 0
            assert network[exporter]["compared_shapes"] > 5
            assert network[exporter]["deviation_percent"]["parameters"] == 0
    # Of the convolution with batch norm, 8 biases are left of 16 numbers.
    counts = results["networks"]["cnn"]["torch"]
    assert counts["parameters"] - counts["parameters_after_folding"] == 8


def exported(folder: Path, name: str, products: int, features: int = 4) -> None:
    """Writes a file as an exporter does: some matrix products in a row."""
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(products)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [2, features])],
        [helper.make_tensor_value_info(f"x{products}", TensorProto.FLOAT, None)],
        [TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT)],
    )
    folder.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=10), folder / f"{name}.onnx")


def test_torchvision_models_that_differ(tmp_path: Path) -> None:
    flops = 2 * 2 * 4 * 4
    exported(tmp_path / "dynamo", "net", 3)
    exported(tmp_path / "legacy", "net", 2)
    exported(tmp_path / "dynamo", "half", 1)
    exported(tmp_path / "dynamo", "broken", 1, features=5)
    exported(tmp_path / "legacy", "broken", 1)
    record = {
        "family": "test",
        "kind": "cnn",
        "input_shape": [2, 4],
        "torch": {
            "flops": 2 * flops,
            "flops_by_operator": {"aten.mm": 2 * flops},
            "parameters": 20,
            "parameters_after_folding": 20,
        },
        "exports": {exporter: {"opset": 20, "seconds": 1.0} for exporter in ("dynamo", "legacy")},
    }
    half = {**record, "exports": {**record["exports"], "legacy": {"error": "ValueError: no"}}}
    content = {"versions": {}, "models": {"net": record, "half": half, "broken": record}}
    (tmp_path / "export.json").write_text(json.dumps(content), "utf-8")
    out = tmp_path / "out.csv"
    run("torchvision_models.py", str(tmp_path), "--out", str(out))
    results = common.read_results(out)
    assert str(tmp_path) not in out.read_text("utf-8")
    net, half, broken = (results["networks"][name] for name in ("net", "half", "broken"))
    assert net["operator_differences"] == {"MatMul": {"0": 3, "1": 2}}
    assert net["dynamo"]["deviation_percent"] == {
        "flops": 50, "convolutions": None, "products": 50, "parameters": -20,
    }  # fmt: skip
    assert net["legacy"]["deviation_percent"]["flops"] == 0
    assert half["legacy"] == {"export_error": "ValueError: no"}
    assert "cannot multiply [2, 5] by [4, 4]" in broken["dynamo"]["error"]
    assert "operator_differences" not in half
    assert "operator_differences" not in broken
    assert results["conversion"]["dynamo"]["models"] == 3
    assert results["conversion"]["dynamo"]["converted"] == 2
    assert results["conversion"]["legacy"]["models"] == 2
    summary = results["summary"]
    assert (summary["compared_by_operators"], summary["same_operator_counts"]) == (1, 0)
    assert summary["cnn_files_compared_by_flops"] == 4
    assert summary["cnn_flops_within_1_percent"] == 1
    assert summary["cnn_flops_largest_deviation_percent"] == 50


def export_script() -> ModuleType:
    path = FOLDER.parent / "scripts" / "export_torchvision.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_export_goes_on(tmp_path: Path) -> None:
    script = export_script()
    network = script.Network("test", (2, 3, 8, 8))
    calls = []

    def build() -> nn.Module:
        calls.append(1)
        return nn.Sequential(nn.Conv2d(3, 64, 7), nn.BatchNorm2d(64), nn.Flatten())

    first = script.export_network("net", network, build, tmp_path, {})
    assert len(calls) == 2  # to count, and to export
    assert not list(script.find_errors(first))
    macs = 2 * 64 * 2 * 2 * 3 * 7 * 7
    assert first["torch"]["flops_by_operator"] == {"aten.convolution": 2 * macs}
    assert first["torch"]["parameters"] == 64 * (3 * 7 * 7 + 3)
    assert first["torch"]["parameters_after_folding"] == 64 * (3 * 7 * 7 + 1)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.onnx")]
    assert len(sizes) == 2
    assert max(sizes) < 4 * 64 * 3 * 7 * 7  # without the data of the weight
    again = script.export_network("net", network, build, tmp_path, first)
    assert again == first
    assert len(calls) == 2
    (tmp_path / "legacy" / "net.onnx").unlink()
    script.export_network("net", network, build, tmp_path, first)
    assert len(calls) == 3
    assert (tmp_path / "legacy" / "net.onnx").is_file()


def test_export_records_failures(tmp_path: Path) -> None:
    class Untraceable(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("this network does not run\nat all")

    script = export_script()
    record = script.export_network("net", script.Network("test"), Untraceable, tmp_path, {})
    errors = list(script.find_errors(record))
    assert [error.split(":")[0] for error in errors] == ["dynamo", "legacy", "torch"]
    assert all("does not run" in error and "\n" not in error for error in errors)
    record = script.export_network("net", script.Network("test"), nn.Identity, tmp_path, record)
    assert not list(script.find_errors(record))  # what failed is tried again


@pytest.mark.parametrize("script", ["loader.py", "layer.py"])
def test_wrong_arguments(script: str) -> None:
    done = run(script, "--repeats", "0", check=False)
    assert done.returncode == 2
    assert "Expected '--repeats' to be positive (got 0)" in done.stderr


def test_nasbench101_subset(tmp_path: Path) -> None:
    results = measured("nasbench101_subset.py", tmp_path)
    (only,) = results["runs"].values()
    assert only["model"] == "gcn"
    assert -1 <= only["metrics"]["kendall_tau"] <= 1
    assert results["table"]["gcn"]["mape"]["mean"] == only["metrics"]["mape"] > 0
