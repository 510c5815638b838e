"""The tables of both README files, from the CSV files of results.

    python benchmarks/tables.py            # prints them
    python benchmarks/tables.py --write    # replaces them between their markers

A marker is a comment ``table: NAME`` before and ``end`` behind a table. A test checks that both
files say what the results say. Numbers of the paper are those of its supplement, Tables 3 and 4
(arXiv 2306.10792).
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from nasbench201 import ABLATIONS, ESTIMATE, LATENCIES, MODELS, RESULTS, SIZES, TEST, VALID
from torch_geometric.utils import scatter

from narformer_pyg._files import atomic_write
from narformer_pyg.datasets import NASBench201, extrapolate_accuracy
from narformer_pyg.spaces import equivalent_indices
from narformer_pyg.spaces.nasbench201 import function_indices
from narformer_pyg.training import all_metrics, kendall_tau

READMES = (common.FOLDER.parent / "README.md", common.FOLDER / "README.md")
FOLDER = common.FOLDER / "results"
MARKER = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
NAMES = {
    "narformer_v2": "NAR-Former V2",
    "gcn": "GCN",
    "gat": "GAT",
    "gin": "GIN",
    "graphsage": "GraphSAGE",
}
# Kendall's tau and Acc(10 %) as printed, by the number of training cells.
PAPER = {781: (0.8735, 0.0026, 99.45), 1563: (0.8875, 0.0013, 99.50)}
Result = dict[str, Any]


def main() -> None:
    """Prints or writes all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="replace the tables of the READMEs")
    parser.add_argument("--plot", type=Path, help="PNG file of tau over the training size")
    args = parser.parse_args()
    if args.plot is not None:
        plot_sizes(all_results(), args.plot)
    for name, table in TABLES.items():
        print(f"## {name}\n\n{markdown(table())}\n")
    if args.write:
        for path in READMES:
            text = path.read_text("utf-8")
            with atomic_write(path) as temporary:
                temporary.write_text(replaced(text), "utf-8")


def replaced(text: str) -> str:
    """Returns a text with its tables as the results have them."""
    return MARKER.sub(lambda m: f"{m[1]}{markdown(TABLES[m[2]]())}\n{m[4]}", text)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first row is the heading."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def all_results() -> list[Result]:
    """Returns the rows of all trainings on NAS-Bench-201."""
    return list(common.read_rows(RESULTS).values())


def read(name: str) -> Result:
    """Returns the results of another benchmark."""
    return common.read_results(FOLDER / f"{name}.csv")


def select(results: Sequence[Result], **wanted: Any) -> list[Result]:
    """Returns the results with the given entries; ``recipe`` is the name of the recipe."""
    defaults = {"variant": ""}
    return [
        result
        for result in results
        if all(
            (result["recipe"]["name"] if key == "recipe" else result.get(key, defaults.get(key)))
            == value
            for key, value in wanted.items()
        )
    ]


def cell(results: Sequence[Result], key: str, digits: int, part: str = "all cells") -> str:
    """Returns mean ± standard deviation of a metric over the seeds, if all have it."""
    values = [result["metrics"].get(part, {}).get(key) for result in results]
    return "" if None in values else mean_and_std(values, digits)


def mean_and_std(values: Sequence[float], digits: int) -> str:
    """Returns mean ± standard deviation; the mean alone of a single value."""
    if len(values) == 0:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def seconds(results: Sequence[Result]) -> str:
    """Returns the median training time."""
    return f"{np.median([result['train_seconds'] for result in results]):,.0f}"


def label_table() -> list[list[str]]:
    """What could be predicted at best: the labels themselves against the test accuracy."""
    dataset = NASBench201()
    train, valid, test = (
        dataset.labels(name) for name in ("cifar10valid_train_acc", VALID, "cifar10_test_acc")
    )
    labels = {
        "validation": valid,
        **{
            f"estimate for {ratio} times the data": extrapolate_accuracy(train, valid, ratio)
            for ratio in (1.5, 2.0, 4.0)
        },
        "test": test,
    }
    functions = function_indices()
    groups = [equivalent_indices(i)[:2] for i in functions.unique().tolist()]
    pairs = torch.stack([group for group in groups if len(group) == 2])
    is_new = ~torch.isin(functions, functions[dataset.get_split(781, seed=0).train])
    rows = [[
        "label", "Kendall's tau", "averaged", "unseen functions", "MAPE (%)", "same function"
    ]]  # fmt: skip
    for name, label in labels.items():
        metrics = all_metrics(label, test)
        averaged = kendall_tau(scatter(label, functions, reduce="mean")[functions], test)
        unseen = kendall_tau(label[is_new], test[is_new])
        difference = float((label[pairs[:, 0]] - label[pairs[:, 1]]).abs().median())
        rows.append([name, f"{metrics['kendall_tau']:.4f}", f"{averaged:.4f}", f"{unseen:.4f}",
                     f"{metrics['mape']:.2f}", f"{difference:.2f}"])  # fmt: skip
    return rows


def accuracy_table() -> list[list[str]]:
    """Kendall's tau and Acc(10 %) by training size, as in Table 3 of the supplement."""
    results = all_results()
    columns = (
        ("Kendall's tau", "kendall_tau", 4, "all cells"),
        ("ties broken", "kendall_tau_ties_broken", 4, "all cells"),
        ("unseen cells", "kendall_tau", 4, "unseen cells"),
        ("unseen functions", "kendall_tau", 4, "unseen functions"),
        ("MAPE (%)", "mape", 2, "all cells"),
        ("Acc(10 %) (%)", "acc_10", 2, "all cells"),
    )
    titles = [title for title, *_ in columns]
    rows = [["cells", "recipe", "model", "trained on", "seeds", *titles, "seconds"]]
    for size in SIZES:
        if size in PAPER:
            tau, std, acc = PAPER[size]
            printed = [f"{tau:.4f} ± {std:.4f}", "", "", "", "", f"{acc:.2f}"]
            name = NAMES["narformer_v2"]
            rows.append([str(size), "paper, as printed", name, "validation", "", *printed, ""])
        for recipe, model, target, variant in (
            ("paper", "narformer_v2", VALID, ""),
            *(("quick", model, VALID, "") for model in MODELS),
            *(("best", model, VALID, "") for model in MODELS),
            ("best", "narformer_v2", VALID, "ensemble"),
            ("quick", "narformer_v2", ESTIMATE, ""),
            *(("best", model, ESTIMATE, "") for model in MODELS),
        ):
            chosen = select(
                results, recipe=recipe, model=model, train_target=target, train_size=size,
                variant=variant,
            )  # fmt: skip
            if chosen:
                name = NAMES[model]
                if variant == "ensemble":
                    name += f", mean of {len(chosen[0]['networks'])} networks"
                label = "validation" if target == VALID else "estimate"
                cells = [cell(chosen, key, digits, part) for _, key, digits, part in columns]
                rows.append([
                    str(size), f"`{recipe}`", name, label, str(len(chosen)), *cells,
                    seconds(chosen),
                ])  # fmt: skip
    return rows


def loss_table() -> list[list[str]]:
    """The testing loss, as in Table 4 of the supplement."""
    results = all_results()
    columns = (
        ("Kendall's tau", "kendall_tau", 4, "all cells"),
        ("ties broken", "kendall_tau_ties_broken", 4, "all cells"),
        ("unseen functions", "kendall_tau", 4, "unseen functions"),
        ("Acc(10 %) (%)", "acc_10", 2, "all cells"),
        ("Acc(5 %) (%)", "acc_5", 2, "all cells"),
        ("MAPE (%)", "mape", 2, "all cells"),
    )
    rows = [["recipe", "model", "seeds", *(title for title, *_ in columns), "seconds"]]
    printed = ["0.851", "", "", "96.01", "77.70", "3.48"]
    rows.append(["paper, as printed", NAMES["narformer_v2"], "", *printed, ""])
    for recipe in ("quick", "best"):
        for model in MODELS:
            chosen = select(results, group="loss", recipe=recipe, model=model)
            if chosen:
                cells = [cell(chosen, key, digits, part) for _, key, digits, part in columns]
                rows.append([
                    f"`{recipe}`", NAMES[model], str(len(chosen)), *cells, seconds(chosen),
                ])  # fmt: skip
    return rows if len(rows) > 2 else rows[:1]


def attention_table() -> list[list[str]]:
    """Graph-aided attention against vanilla self-attention, 781 cells, the quick recipe."""
    results = all_results()
    rows = [["attention", "parameters", "seeds", "Kendall's tau", "Acc(10 %) (%)", "seconds"]]
    for variant, name in (
        ("", "graph-aided"),
        ("softmax", "vanilla, on edges and self"),
        ("global_softmax", "vanilla, on all pairs"),
    ):
        chosen = select(results, recipe="quick", model="narformer_v2", train_target=VALID,
                        train_size=781, variant=variant)  # fmt: skip
        if chosen:
            rows.append([
                name, f"{chosen[0]['num_parameters']:,}", str(len(chosen)),
                cell(chosen, "kendall_tau", 4), cell(chosen, "acc_10", 2), seconds(chosen),
            ])  # fmt: skip
    return rows if len(rows) > 2 else rows[:1]


def ablation_table() -> list[list[str]]:
    """The change of Kendall's tau, seed by seed, against what a part was taken from or added to."""
    results = all_results()
    rows = [["change", "against", "seeds", "Kendall's tau", "difference"]]
    groups: dict[str, list[Result]] = defaultdict(list)
    groups[""] = select(results, recipe="quick", model="narformer_v2", train_target=VALID,
                        train_size=781, variant="")  # fmt: skip
    for result in select(results, group="ablation"):
        groups[result["variant"]].append(result)
    tau = {
        name: {result["seed"]: result["metrics"]["all cells"]["kendall_tau"] for result in chosen}
        for name, chosen in groups.items()
    }
    for variant, _, _ in ABLATIONS:
        if variant not in groups:
            continue
        # The consistency loss compares graphs with augmented copies, so it needs these.
        base = "augmentation" if variant == "augmentation_ac" else ""
        differences = [
            value - tau[base][seed] for seed, value in tau[variant].items() if seed in tau[base]
        ]
        chosen = groups[variant]
        rows.append([variant.replace("_", " "), base or "`quick`", str(len(chosen)),
                     cell(chosen, "kendall_tau", 4), mean_and_std(differences, 4)])  # fmt: skip
    return rows


def latency_table() -> list[list[str]]:
    """Latencies of nine devices: the mean over the seeds, one line a device."""
    results = all_results()
    rows = [["label", "cells", *(f"{NAMES[model]}: tau, Spearman, MAPE (%), Acc(10 %) (%)"
                                 for model in ("narformer_v2", "gcn", "gat"))]]  # fmt: skip
    for size in (900, 100):
        for target in LATENCIES:
            row = []
            for model in ("narformer_v2", "gcn", "gat"):
                chosen = select(results, group="latency", train_target=target, train_size=size,
                                model=model)  # fmt: skip
                row.append(", ".join(
                    cell(chosen, key, digits)
                    for key, digits in (("kendall_tau", 3), ("spearman", 3), ("mape", 1),
                                        ("acc_10", 1))
                ) if chosen else "")  # fmt: skip
            if any(row):
                rows.append([target.removeprefix("latency_"), str(size), *row])
    return rows


def nasbench101_table() -> list[list[str]]:
    """The subset of NAS-Bench-101."""
    rows = [["model", "Kendall's tau", "Acc(1 %) (%)", "MAPE (%)", "seconds"]]
    for model, values in read("nasbench101")["table"].items():
        digits = (("kendall_tau", 4), ("acc_1", 2), ("mape", 2), ("seconds", 0))
        rows.append([NAMES[model], *(
            f"{values[key]['mean']:.{n}f} ± {values[key]['std']:.{n}f}" for key, n in digits
        )])  # fmt: skip
    return rows


def networks_table() -> list[list[str]]:
    """Latencies of ONNX models, a tenth of each family tested."""
    rows = [["model", "MAPE (%)", "Acc(10 %) (%)", "Kendall's tau"]]
    for row in read("latency_in_domain")["table"].values():
        digits = (("mape", 2), ("acc_10", 1), ("kendall_tau", 4))
        cells = [f"{row[key]:.{n}f} ± {row[f'{key}_std']:.{n}f}" for key, n in digits]
        rows.append([NAMES.get(row["model"], row["model"]), *cells])
    return rows


def families_table() -> list[list[str]]:
    """Latencies of families that were left out: MAPE."""
    table = list(read("latency_families")["table"].values())
    models = list(dict.fromkeys(row["model"] for row in table))
    rows = [["family left out", *(NAMES.get(model, model) for model in models)]]
    for split in dict.fromkeys(row["split"] for row in table):
        mape = {row["model"]: row["mape"] for row in table if row["split"] == split}
        rows.append([split, *(f"{mape[model]:.1f}" for model in models)])
    return rows


def search_table() -> list[list[str]]:
    """The searches of NAS-Bench-201."""
    rows = [["search", "evaluations", "test accuracy (%)", "lowest", "seconds of the search"]]
    for name, row in read("search")["searches"].items():
        accuracy = f"{row['test_accuracy_mean']:.3f} ± {row['test_accuracy_std']:.3f}"
        lowest, seconds = f"{row['test_accuracy_min']:.3f}", f"{row['search_seconds_mean']:.1f}"
        rows.append([name, str(row["budget"]), accuracy, lowest, seconds])
    return rows


def pareto_table() -> list[list[str]]:
    """Pareto searches: shares of the hypervolume of the true front."""
    rows = [["latency", "part of the front", "Pareto search (%)", "random (%)"]]
    for latency, row in read("search_pareto")["latencies"].items():
        for part in ("whole front", "above 80 %"):
            cells = [
                f"{100 * row[f'{name} {part}_mean']:.1f} ± {100 * row[f'{name} {part}_std']:.1f}"
                for name in ("predictor", "random")
            ]
            rows.append([latency.removeprefix("latency_"), part, *cells])
    return rows


def step_table() -> list[list[str]]:
    """Steps and inference of the whole model, by processor: all kernels against other forms."""
    rows = [["where, threads", "batch", "what", "ms", "dense loop", "all kernels off", "one off"]]
    groups: dict[tuple[str, ...], dict[str, Result]] = defaultdict(dict)
    for row in common.read_rows(FOLDER / "train_step.csv").values():
        key = (f"{row['where']}, {row['threads']}", row["case"], row["what"])
        groups[key][row["form"]] = row
    for key, forms in groups.items():
        one_off = ", ".join(
            f"{name} {row['over_kernels']:.2f}x"
            for name, row in forms.items()
            if name not in ("dense", "kernels", "plain", "bf16")
        )
        cells = [spread(forms[name]) for name in ("dense", "plain")]
        rows.append([*key, f"{1e3 * forms['kernels']['seconds']:.1f}", *cells, one_off])
    return rows


def batches(case: str) -> str:
    """Writes "cells 16" as "16-cell batches"."""
    kind, size = case.split()
    return f"{size}-{kind[:-1]} batches"


def spread(row: Result) -> str:
    """Writes a ratio and the range of the middle 80 % of its repeats."""
    return f"{row['over_kernels']:.2f}x [{row['p10']:.2f} .. {row['p90']:.2f}]"


def layer_table() -> list[list[str]]:
    """The layer alone, forward and backward, on the largest graph that all layers were timed on."""
    results = list(read("layer")["rows"].values())
    rows = [["nodes, channels", "layer", "ms", "times as slow", "peak memory / input"]]
    for size in ((1_000, 512), (100_000, 512), (1_000_000, 64)):
        for row in results:
            if (row["num_nodes"], row["width"]) == size:
                peak = row.get("peak_per_input")
                milliseconds = f"{1e3 * row['seconds']['median']:.1f}"
                rows.append([
                    f"{size[0]:,}, {size[1]}", row["layer"], milliseconds,
                    f"{row['times_as_slow_as_ours']['of_medians']:.1f}",
                    "" if peak is None else f"{peak:.0f}",
                ])  # fmt: skip
    return rows


def predict_table() -> list[list[str]]:
    """Prediction of whole spaces, and of one cell."""
    results = read("predict")
    rows = [["what", "result"]]
    for name, space in results["spaces"].items():
        median = {key: values["median"] for key, values in space.items()}
        rows.append([
            f"{name}, {median['num_cells']:,.0f} cells, `quick` model",
            f"built in {median['build_seconds']:.3f} s, predicted in "
            f"{median['predict_seconds']:.1f} s, {median['cells_per_second']:,.0f} a second, "
            f"{median['peak_bytes'] / 2**20:.0f} MB",
        ])  # fmt: skip
    single = results["single"]
    each = {key: 1e3 * values["median"] for key, values in single["seconds_per_cell"].items()}
    rows.append([
        "one cell, paper's model: encode and infer; the dense form, infer alone",
        f"{each['both']:.2f} ms; {each['dense infer']:.2f} ms: "
        + common.format_ratio(single["times_as_fast_as_dense"]),
    ])  # fmt: skip
    return rows


def gpu_step_table() -> list[list[str]]:
    """Milliseconds of a step on a GPU, by how the GPU gets its work."""
    forms = {
        "dense loop": "dense float32",
        "operation by operation": "eager float32",
        "one CUDA graph": "captured float32",
        "with TF32": "captured TF32",
        "with bf16": "captured bf16",
    }
    rows = [["GPU", "batch and pass", *forms]]
    for (where, case), found in gpu_rows("steps").items():
        times = (found.get(form) for form in forms.values())
        rows.append(
            [where, case, *("" if t is None else f"{1e3 * t['seconds']:.2f}" for t in times)]
        )
    return rows


def gpu_layer_table() -> list[list[str]]:
    """Milliseconds and gigabytes of a layer on a GPU, forward and backward."""
    precisions = ("float32", "TF32", "bf16")
    rows = [["GPU", "graph", "layer", *(f"{name}: ms, GB" for name in precisions)]]
    for (where, case), found in gpu_rows("layer").items():
        for layer in dict.fromkeys(form.rsplit(" ", 1)[0] for form in found):
            cells = (found[f"{layer} {precision}"] for precision in precisions)
            rows.append([
                where, case, layer,
                *(f"{1e3 * c['seconds']:.1f}, {c['peak_bytes'] / 1e9:.2f}" for c in cells),
            ])  # fmt: skip
    return rows


def gpu_run_table() -> list[list[str]]:
    """Trainings and predictions on a GPU."""
    rows = [["GPU", "run", "how", "seconds"]]
    for section in ("trainings", "predictions"):
        for (where, case), found in gpu_rows(section).items():
            for form, row in found.items():
                seconds = f"{row['seconds']:.2f}"
                if "train_seconds" in row:
                    seconds += f", of which {row['train_seconds']:.1f} train"
                rows.append([where, case, form, seconds])
    return rows


def gpu_rows(section: str) -> dict[tuple[str, str], dict[str, Result]]:
    """Returns the rows of a section of ``gpu.py``, by GPU and case, then by form."""
    groups: dict[tuple[str, str], dict[str, Result]] = defaultdict(dict)
    for row in common.read_rows(FOLDER / "gpu.csv").values():
        if row["section"] == section:
            groups[row["where"], row["case"]][row["form"]] = row
    return groups


def convert_table() -> list[list[str]]:
    """Conversion of ONNX models."""
    parts = {"45 models that packages ship": read("convert")["summary"]}
    for name, part in read("torchvision")["conversion"].items():
        parts[f"torchvision's networks, {name} exporter"] = part
    rows = [["models", "converted", "every shape", "wrong shapes", "median s", "slowest s"]]
    for name, part in parts.items():
        rows.append([
            name, f"{part['converted']} of {part['models']}", str(part["complete"]),
            f"{part['wrong_shapes']} of {part['compared_shapes']:,}",
            f"{part['median_seconds']:.3f}", f"{part['max_seconds']:.2f}",
        ])  # fmt: skip
    return rows


def modules_table() -> list[list[str]]:
    """Conversion of torch modules."""
    rows = [["modules", "converted", "median s", "worst s", "FLOPs of torch's counter",
             "parameters of the module"]]  # fmt: skip
    sets = (
        ("timm's networks, every image size", "timm_graphs", "status"),
        ("models of transformers", "transformers_models", "error"),
    )
    for name, file, error in sets:
        found = csv_rows(file)
        good = [row for row in found if not row[error]]
        seconds_each = sorted(float(row["seconds"]) for row in good)
        counted = [row for row in good if row["counter_flops"]]
        near = sum(
            abs(int(row["flops"]) - int(row["counter_flops"])) <= 1e-3 * int(row["counter_flops"])
            for row in counted
        )
        equal = sum(row["parameters"] == row["module_parameters"] for row in good)
        rows.append([
            name, f"{len(good):,} of {len(found):,}", f"{np.median(seconds_each):.2f}",
            f"{seconds_each[-1]:.2f}", f"{near:,} of {len(counted):,}",
            f"{equal:,} of {len(good):,}",
        ])  # fmt: skip
    return rows


def routes_table() -> list[list[str]]:
    """Torch modules recorded and exported."""
    found = csv_rows("torch_route")
    rows = [["of 60 networks of timm", "recorded and exported alike"]]
    for key in ("same_operators", "same_flops", "same_shapes"):
        same = sum(row[key] == "True" for row in found)
        rows.append([key.replace("same_", ""), f"{same} of {len(found)}"])
    for key in ("recorded", "exported"):
        each = [float(row[f"{key}_s"]) for row in found]
        rows.append(
            [f"CPU seconds, {key}: median, worst", f"{np.median(each):.2f}, {max(each):.2f}"]
        )
    return rows


def csv_rows(name: str) -> list[dict[str, str]]:
    """Returns the lines of a table that has a line for each network."""
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def threads_table() -> list[list[str]]:
    """Seconds of an epoch alone and beside a busy process."""
    rows = [["threads", "alone", "beside a busy process"]]
    for name, row in read("threads")["seconds"].items():
        rows.append([name, *(common.format_spread(values, digits=2) for values in row.values())])
    return rows


def measured_table() -> list[list[str]]:
    """The figures of the project's README."""
    results = all_results()

    def taus(**wanted: Any) -> str:
        chosen = select(results, variant="", model="narformer_v2", test_target=TEST, **wanted)
        return f"{cell(chosen, 'kendall_tau', 4)} ({len(chosen)} seed{'s'[: len(chosen) - 1]})"

    rows = [["what", "result"]]
    for recipe, target, size in (
        ("best", VALID, 781), ("best", ESTIMATE, 781), ("best", VALID, 1563),
        ("best", ESTIMATE, 1563), ("best", VALID, 156), ("best", ESTIMATE, 156),
        ("quick", VALID, 781), ("paper", VALID, 781), ("paper", VALID, 1563),
    ):  # fmt: skip
        label = "validation accuracy" if target == VALID else "`cifar10_estimated_acc`"
        what = f"NAS-Bench-201, {size:,} cells, {label}, `--recipe {recipe}`: Kendall's tau"
        rows.append([what, taus(recipe=recipe, train_target=target, train_size=size)])
        if recipe == "paper":
            tau, std, _ = PAPER[size]
            rows.append(["the same, as printed in the paper", f"{tau:.4f} ± {std:.4f}"])
    loss = select(results, group="loss", recipe="best", model="narformer_v2")
    rows.append([
        "testing loss, 781 cells: tau, MAPE (paper: 0.851, 3.48 %)",
        f"{cell(loss, 'kendall_tau', 4)}, {cell(loss, 'mape', 2)} %",
    ])  # fmt: skip
    for recipe in ("quick", "best"):
        chosen = select(results, variant="", recipe=recipe, model="narformer_v2",
                        train_target=VALID, train_size=781)  # fmt: skip
        where = chosen[0]["environment"]["processor"]
        rows.append([f"training of `{recipe}`, 781 cells, one core of {where}",
                     f"{seconds(chosen)} s"])  # fmt: skip
    search = read("search")["searches"]["predictor"]
    rows.append([
        f"search, {search['budget']} evaluations: test accuracy of the chosen cell, 20 seeds",
        f"{search['test_accuracy_mean']:.3f} ± {search['test_accuracy_std']:.3f} %",
    ])  # fmt: skip
    tested = [row for row in read("latency_in_domain")["table"].values()]
    mape = {row["model"]: f"{row['mape']:.2f} ± {row['mape_std']:.2f} %" for row in tested}
    rows.append(["latency of ONNX networks, a tenth of each family tested: MAPE (GraphSAGE)",
                 f"{mape['narformer_v2']} ({mape['graphsage']})"])  # fmt: skip
    left_out = {row["model"]: row["mape"] for row in read("latency_families")["table"].values()
                if row["split"] == "mean"}  # fmt: skip
    rows.append(["the same, eleven families left out in turn: MAPE (GraphSAGE, linear)",
                 f"{left_out['narformer_v2']:.1f} % ({left_out['graphsage']:.1f} %, "
                 f"{left_out['flops + memory']:.1f} %)"])  # fmt: skip
    rows += [
        [
            f"training step, {batches(row['case'])}, {row['where']}, "
            f"{row['threads']} thread{'s'[: row['threads'] - 1]}: "
            "a loop over graphs with dense matrices takes",
            spread(row),
        ]
        for row in common.read_rows(FOLDER / "train_step.csv").values()
        if row["form"] == "dense" and row["what"] == "training step"
    ]
    for (where, case), found in gpu_rows("steps").items():
        if case == "cells 16, training step":
            eager, captured = (
                found[form]["seconds"] for form in ("eager float32", "captured float32")
            )
            rows.append([f"training step, 16-cell batches, {where}: "
                         "operation by operation, captured",
                         f"{1e3 * eager:.1f} ms, {1e3 * captured:.1f} ms"])  # fmt: skip
    rows += predict_table()[1:]
    loader = read("loader")
    rows.append([f"batches of {loader['settings']['batch_size']} cells, `DeviceLoader` against "
                 "PyG's `DataLoader`", f"{loader['ratio']['of_medians']:.0f}x"])  # fmt: skip
    for row in layer_table():
        if row[0] == "100,000, 512" and row[1] in ("GATv2Conv", "TransformerConv"):
            rows.append([f"one layer on 100,000 nodes, 512 channels: `{row[1]}` takes",
                         f"{row[3]}x"])  # fmt: skip
    return rows


def plot_sizes(results: Sequence[Result], path: Path) -> None:
    """Draws Kendall's tau against the number of training cells."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), constrained_layout=True)

    def curve(label: str, select_size: Callable[[int], list[Result]], **style: Any) -> None:
        points = []
        for size in SIZES:
            taus = [r["metrics"]["all cells"]["kendall_tau"] for r in select_size(size)]
            if taus:
                std = np.std(taus, ddof=1) if len(taus) > 1 else 0.0
                points.append((size, np.mean(taus), std))
        if points:
            sizes, means, stds = zip(*points, strict=True)
            axes.errorbar(sizes, means, stds, label=label, capsize=2, **style)

    for recipe, target, label in (
        ("best", ESTIMATE, "NAR-Former V2, best, on the estimate"),
        ("best", VALID, "NAR-Former V2, best, on validation accuracy"),
        ("paper", VALID, "NAR-Former V2, paper, one seed"),
    ):
        curve(label, lambda size, r=recipe, t=target: select(
            results, recipe=r, train_target=t, train_size=size, model="narformer_v2", variant=""),
            marker="o", linewidth=2)  # fmt: skip
    for model in MODELS:
        curve(f"{NAMES[model]}, quick", lambda size, m=model: select(
            results, recipe="quick", train_target=VALID, train_size=size, model=m, variant=""),
            marker=".", linewidth=1)  # fmt: skip
    axes.errorbar(
        list(PAPER),
        [tau for tau, _, _ in PAPER.values()],
        [std for _, std, _ in PAPER.values()],
        fmt="k*",
        markersize=10,
        label="NAR-Former V2, as printed in the paper",
    )
    axes.axhline(0.894, color="gray", linestyle=":", linewidth=1)
    axes.text(SIZES[0], 0.8945, "validation accuracy itself", color="gray", fontsize=8, va="bottom")
    axes.set_xscale("log")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.set_xlabel("training cells")
    axes.set_ylabel("Kendall's tau, test accuracy of all cells")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


#: All tables by the names of their markers.
TABLES: dict[str, Callable[[], list[list[str]]]] = {
    "measured": measured_table,
    "labels": label_table,
    "accuracy": accuracy_table,
    "loss": loss_table,
    "attention": attention_table,
    "ablation": ablation_table,
    "latency": latency_table,
    "nasbench101": nasbench101_table,
    "networks": networks_table,
    "families": families_table,
    "search": search_table,
    "pareto": pareto_table,
    "step": step_table,
    "layer": layer_table,
    "predict": predict_table,
    "gpu_steps": gpu_step_table,
    "gpu_layer": gpu_layer_table,
    "gpu_runs": gpu_run_table,
    "convert": convert_table,
    "modules": modules_table,
    "routes": routes_table,
    "threads": threads_table,
}

if __name__ == "__main__":
    main()
