"""The command line, a thin skin over functions of the package.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narformer_pyg import __version__
from narformer_pyg.threads import wait_passively

if TYPE_CHECKING:
    from narformer_pyg.convert import Conversion

log = logging.getLogger(__name__)

GRAPH_FORMAT = "narformer_pyg.graph"

#: Help and module of every command; a module has ``add_arguments(parser)`` and ``run(args)``.
COMMANDS = {
    "convert": ("turn an ONNX model into a graph", __name__),
    "predict": ("predict accuracy or latency of architectures", __name__),
    "profile": ("measure the latency of a folder of ONNX models",
                "narformer_pyg.profiling.command"),
    "train": ("train and test a predictor", "narformer_pyg.training.command"),
    "search": ("search a space for good architectures", "narformer_pyg.search.command"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    r"""Runs the command line.

    Args:
        argv (sequence of str, optional): The arguments; by default those of the process.
            (default: :obj:`None`)

    Returns:
        int: 0, or 1 after an error, which is written to the standard error output.
    """
    wait_passively()  # before torch is imported
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), "")
    try:
        args = _parser(command).parse_args(arguments)
        result = args.run(args)
        return result if isinstance(result, int) else 0
    except (OSError, ImportError, ValueError, FloatingPointError) as error:
        print(f"narformer {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _parser(command: str) -> argparse.ArgumentParser:
    """Returns the parser; only the command that runs gets its arguments, which may import."""
    parser = argparse.ArgumentParser(
        prog="narformer", description="Predict accuracy or latency of neural architectures."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, module_name) in COMMANDS.items():
        subparser = commands.add_parser(name, help=text)
        if name != command:
            continue
        if module_name == __name__:
            add_arguments, run = {
                "convert": (_add_convert, _convert),
                "predict": (_add_predict, _predict),
            }[name]
        else:
            module: Any = importlib.import_module(module_name)
            add_arguments, run = module.add_arguments, module.run
        add_arguments(subparser)
        subparser.set_defaults(run=run)
    return parser


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turn a network into a graph and say what is in it: an ONNX model, or a network of a "
        "library, built without weights. The file has the graph as a dictionary: "
        "Data.from_dict(torch.load(FILE)['graph'])."
    )
    parser.add_argument(
        "model",
        help="an ONNX file, timm:NAME, torchvision:NAME, or hf:CONFIG (a folder with a "
        "config.json, or a name on the hub)",
    )
    parser.add_argument(
        "--fold_batch_norm", action="store_true",
        help="fold batch normalisation into convolutions, as deployed networks have it (networks "
        "of a library)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="where to write the graph (.pt)")
    _add_inputs(parser)
    from narformer_pyg.vocabulary import COUNTINGS, VOCABULARIES

    parser.add_argument(
        "--vocabulary", choices=VOCABULARIES, default="onnx",
        help="ids of operators: all of the standard, or the paper's 28 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--counting", choices=COUNTINGS, default="standard",
        help="FLOPs, parameters and memory access as torch counts, or as NNLQP does "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--simplify", action=argparse.BooleanOptionalAction, default=True,
        help="fold constants, shape arithmetic and identities (default: yes)",
    )  # fmt: skip


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Predict architectures with a trained predictor, without running them: ONNX files, or "
        "cells as text. The unit is that of the labels it was trained on."
    )
    parser.add_argument(
        "architectures", nargs="+", metavar="ARCHITECTURE",
        help="an ONNX file, or the text of a cell",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", required=True,
        help="folder of the predictor, as 'narformer train' leaves it, or the name of one inside "
        "the package or on the hub",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    _add_inputs(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    from narformer_pyg.profiling.command import named_shape

    parser.add_argument(
        "--input_shape", type=named_shape, action="append", default=[],
        metavar="NAME=1,3,224,224",
        help="shape of an input with dynamic dimensions; repeat it for several inputs",
    )  # fmt: skip
    parser.add_argument(
        "--input_value", type=_named_value, action="append", default=[], metavar="NAME=16000",
        help="value of an input that is a setting, for instance a sampling rate",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=int, help="the batch size, where it is dynamic")
    parser.add_argument(
        "--runtime", action=argparse.BooleanOptionalAction, default=True,
        help="let ONNX Runtime execute the model for shapes that nothing else finds "
        "(default: yes)",
    )  # fmt: skip


def _input_arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "input_shapes": dict(args.input_shape) or None,
        "input_values": dict(args.input_value) or None,
        "batch_size": args.batch_size,
        "use_runtime": args.runtime,
    }


def _convert(args: argparse.Namespace) -> None:
    from narformer_pyg.convert import (
        convert_onnx,
        convert_torch,
        is_named,
        named_network,
        summary_text,
    )

    if args.output is not None and args.output.is_dir():
        raise ValueError(f"Expected '--output' to be a file (got the folder '{args.output}')")
    options = {name: getattr(args, name) for name in ("vocabulary", "counting", "simplify")}
    if is_named(args.model):
        shapes = [shape for _, shape in args.input_shape]
        module, inputs = named_network(
            args.model, batch_size=args.batch_size or 1, input_shape=shapes[0] if shapes else None
        )
        conversion = convert_torch(module, inputs, fold_batch_norm=args.fold_batch_norm, **options)
    else:
        conversion = convert_onnx(args.model, **options, **_input_arguments(args))
    print(summary_text(conversion.report))
    if args.output is not None:
        save_graph(args.output, conversion)
        print(f"{'written:':<19}{args.output}")


def _predict(args: argparse.Namespace) -> None:
    from narformer_pyg.convert import convert_onnx, summary_text
    from narformer_pyg.predictor import ArchitecturePredictor

    predictor = ArchitecturePredictor.from_pretrained(args.checkpoint, args.device)
    conventions: dict[str, Any] = predictor.conventions
    graphs: list[Any] = []
    for text in args.architectures:
        if "vocabulary" not in conventions:
            graphs.append(text)
            continue
        # Here, and not in 'predict', since inputs may be given and the report may have a warning.
        names = ("vocabulary", "counting")
        conversion = convert_onnx(
            text, **{k: conventions[k] for k in names}, **_input_arguments(args)
        )
        if not conversion.report.is_complete:
            log.warning("%s is not known completely; predictions may be off:", text)
            log.warning("%s", summary_text(conversion.report))
        graphs.append(conversion.data)
    for text, values in zip(args.architectures, predictor.predict(graphs).tolist(), strict=True):
        for name, value, unit in zip(predictor.target_names, values, predictor.units, strict=True):
            shown = f"{name} {value:.4g}"
            if unit and not name.endswith(f"_{unit}"):  # 'latency_ms' says its unit
                shown += f" {unit}"
            print(f"{text}: {shown}")


def save_graph(path: Path, conversion: Conversion) -> None:
    """Writes a graph with its report, so that :meth:`torch.load` reads it without pickled code."""
    import torch

    from narformer_pyg._files import atomic_write

    content = {
        "format": GRAPH_FORMAT,
        "version": __version__,
        "graph": conversion.data.to_dict(),
        "node_names": list(conversion.node_names),
        "report": dataclasses.asdict(conversion.report),
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _named_value(text: str) -> tuple[str, float | list[float]]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBERS (got {text!r})")
    try:
        numbers = [int(n) if n.lstrip("+-").isdigit() else float(n) for n in value.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers after {name!r} (got {value!r})"
        ) from None
    return name, numbers if "," in value else numbers[0]


if __name__ == "__main__":
    sys.exit(main())
