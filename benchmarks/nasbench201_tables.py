"""Tables and plots of the trainings that ``nasbench201.py`` has done.

    python benchmarks/nasbench201_tables.py

Prints Markdown; plots go next to the results. Numbers of the paper are those of its supplement,
Tables 3 and 4 (arXiv 2306.10792).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from nasbench201 import ABLATIONS, ESTIMATE, LATENCIES, MODELS, RESULTS, SIZES, VALID
from torch_geometric.utils import scatter

from narformer_pyg.datasets import NASBench201, extrapolate_accuracy
from narformer_pyg.spaces import equivalent_indices
from narformer_pyg.spaces.nasbench201 import function_indices
from narformer_pyg.training import all_metrics, kendall_tau
from narformer_pyg.training.report import plot_history, plot_predictions

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = {
    "narformer_v2": "NAR-Former V2",
    "gcn": "GCN",
    "gat": "GAT",
    "gin": "GIN",
    "graphsage": "GraphSAGE",
}
# Kendall's tau and Acc(10 %) as printed, by the number of training cells.
PAPER = {781: (0.8735, 0.0026, 99.45), 1563: (0.8875, 0.0013, 99.50)}
# Runs whose predictions are drawn against the labels.
PLOTTED = (
    "narformer_v2_best_cifar10_estimated_acc_781_seed0",
    "narformer_v2_best_test_loss_781_seed0",
    *(f"{model}_quick_781_seed0" for model in MODELS),
    "narformer_v2_paper_1563_seed0",
)
Result = dict[str, Any]


def main() -> None:
    """Prints all tables for which there are results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/nasbench201"),
        help="folder of the predictions that are drawn (default: %(default)s)",
    )
    args = parser.parse_args()
    results = [
        json.loads(path.read_text("utf-8")) for path in sorted(args.results.glob("*_seed*.json"))
    ]
    results = [result for result in results if "metrics" in result]
    print(f"## Labels\n\n{markdown(label_table())}")
    for title, table in (
        ("Accuracy", accuracy_table),
        ("Testing loss", loss_table),
        ("Attention", attention_table),
        ("Ablation", ablation_table),
        ("Latency", latency_table),
    ):
        rows = table(results)
        if len(rows) > 1:
            print(f"\n## {title}\n\n{markdown(rows)}")
    plot_sizes(results, args.results / "tau_over_size.png")
    for name in PLOTTED:
        if (args.work / name / "predictions.npy").is_file():
            plot_run(args.results, args.work, name)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first row is the heading."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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


def accuracy_table(results: Sequence[Result]) -> list[list[str]]:
    """Kendall's tau and Acc(10 %) by training size, as in Table 3 of the supplement."""
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


def loss_table(results: Sequence[Result]) -> list[list[str]]:
    """The testing loss, as in Table 4 of the supplement."""
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


def attention_table(results: Sequence[Result]) -> list[list[str]]:
    """Graph-aided attention against vanilla self-attention, 781 cells, the quick recipe."""
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


def ablation_table(results: Sequence[Result]) -> list[list[str]]:
    """The change of Kendall's tau, seed by seed, against what a part was taken from or added to."""
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


def latency_table(results: Sequence[Result]) -> list[list[str]]:
    """Latencies of nine devices: the mean over the seeds, one line a device."""
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


def plot_run(results: Path, work: Path, name: str) -> None:
    """Draws predicted against measured labels of one run and, of the paper's recipe, its curve."""
    result = json.loads((results / f"{name}.json").read_text("utf-8"))
    target = result["test_target"]
    plot_predictions(
        results / f"{name}.png",
        torch.from_numpy(np.load(work / name / "predictions.npy")),
        NASBench201().labels(target),
        label=target,
        predicted_label=result["train_target"],
        unit=NASBench201.targets[target].unit,
        title=f"{NAMES[result['model']]}, {result['recipe']['name']}, "
        f"{result['train_size']} cells, tau {result['metrics']['all cells']['kendall_tau']:.3f}",
    )
    if result["recipe"]["name"] == "paper":
        plot_history(results / f"{name}_history.png", result["history"])


def plot_sizes(results: Sequence[Result], path: Path) -> None:
    """Draws Kendall's tau against the number of training cells."""
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


if __name__ == "__main__":
    main()
