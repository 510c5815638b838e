r"""Predicts the accuracy of all 15,625 cells of NAS-Bench-201 from a few hundred trained ones.

    python examples/nasbench201_accuracy.py                     # minutes on two CPU cores
    python examples/nasbench201_accuracy.py --recipe best --target cifar10_estimated_acc
    python examples/nasbench201_accuracy.py --recipe paper      # the paper's training; hours
    python examples/nasbench201_accuracy.py --target latency_pixel3

NAR-Former V2 is trained on the CIFAR-10 validation accuracy of 781 cells (5 % of the space) and
tested on the CIFAR-10 test accuracy of every cell, as in the supplement of the paper, Table 3. The
labels are inside the package. benchmarks/README.md holds the results of the first two commands.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from narformer_pyg.threads import wait_passively

wait_passively()  # before torch is imported: a busy neighbour then costs its share, not more

import torch  # noqa: E402

from narformer_pyg.datasets import NASBench201  # noqa: E402
from narformer_pyg.training import (  # noqa: E402
    CELL_RECIPES,
    free_folder,
    get_recipe,
    nasbench201_task,
    train,
)


def main() -> None:
    """Trains, tests and writes the results."""
    parser = argparse.ArgumentParser(
        description="Train a predictor on NAS-Bench-201 and test it on all 15,625 cells.",
        epilog=f"Targets: {', '.join(NASBench201.targets)}. 'narformer train' has more options.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--train_size", type=int, default=781, help="cells to train on")
    parser.add_argument("--val_size", type=int, default=0, help="further cells for validation")
    parser.add_argument("--recipe", choices=CELL_RECIPES, default="quick", help="settings")
    parser.add_argument("--model", default="narformer_v2", help="the network, for instance gcn")
    parser.add_argument("--target", default="cifar10valid_valid_acc", help="label to train on")
    parser.add_argument("--test_target", help="label to test on; by default the one that fits")
    parser.add_argument("--seed", type=int, default=0, help="seed of split and training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed, 16-mixed on a GPU")
    parser.add_argument("--matmul_precision", default="highest", help="high is TF32 on a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder of the results; by default a new one")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.matmul_precision != "highest":  # the default
        torch.set_float32_matmul_precision(args.matmul_precision)
    if args.resume and args.out is None:
        parser.error("--resume needs --out, the folder of the interrupted run")

    # The cells, their labels, and which of them to train and test on:
    task = nasbench201_task(
        args.target, args.test_target, args.train_size, args.val_size, args.seed
    )
    out = args.out or free_folder(f"{task.name}_{args.model}_{args.recipe}_seed{args.seed}")
    # Encoder, model and training, as the recipe says:
    result = train(
        task,
        get_recipe(args.recipe),
        args.model,
        out=out,
        resume=args.resume,
        seed=args.seed,
        device=args.device,
        precision=args.precision,
    )
    assert result is not None  # one process
    print(f"\nTested on {task.test_target}:\n\n{result.table()}\n")

    # The predictor is in the folder, and predicts any cell:
    predictor = result.predictor()
    cell = task.describe(0)
    print(f"{cell}: {predictor.predict(cell).item():.2f} {task.unit} predicted")
    print(f"\nResults: {out}/")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command with '--resume --out FOLDER' goes on.")
