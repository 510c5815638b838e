"""The command line: ``narformer convert``, ``predict`` and so on, a thin skin over functions."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from narformer_pyg import __version__
from narformer_pyg._files import atomic_write
from narformer_pyg.convert import Conversion, convert_onnx, summary_text
from narformer_pyg.predictor import ArchitecturePredictor
from narformer_pyg.profiling import command as profile_command
from narformer_pyg.vocabulary import COUNTINGS, VOCABULARIES

log = logging.getLogger(__name__)

GRAPH_FORMAT = "narformer_pyg.graph"


def main(argv: Sequence[str] | None = None) -> int:
    r"""Runs the command line.

    Args:
        argv (sequence of str, optional): The arguments; by default those of the process.
            (default: :obj:`None`)

    Returns:
        int: 0, or 1 after an error, which is written to the standard error output.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
    except ImportError as error:
        print(f"narformer {arguments[0]}: {error}", file=sys.stderr)
        return 1
    try:
        return args.run(args) or 0
    except (OSError, ImportError, ValueError) as error:
        print(f"narformer {args.command}: {error}", file=sys.stderr)
        return 1


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="narformer", description="Predict accuracy or latency of neural architectures."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_convert(commands.add_parser("convert", help="turn an ONNX model into a graph"))
    _add_predict(commands.add_parser("predict", help="predict the latency of ONNX models"))
    profile = commands.add_parser("profile", help="measure the latency of a folder of ONNX models")
    profile_command.add_arguments(profile)
    profile.set_defaults(run=profile_command.run)
    search = commands.add_parser("search", help="search a space for good architectures")
    if arguments[:1] == ["search"]:  # needs Lightning, which takes seconds to import
        from narformer_pyg.search import command as search_command

        search_command.add_arguments(search)
        search.set_defaults(run=lambda args: search_command.run(args) and 0)
    return parser


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turn an ONNX model into a graph and say what is in it. The file has the graph as a "
        "dictionary: Data.from_dict(torch.load(FILE)['graph'])."
    )
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="where to write the graph (.pt)")
    _add_inputs(parser)
    parser.add_argument("--vocabulary", choices=VOCABULARIES, default="onnx")
    parser.add_argument("--counting", choices=COUNTINGS, default="standard")
    parser.add_argument(
        "--simplify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fold constants, shape arithmetic and identities",
    )
    parser.set_defaults(run=_convert)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Predict what a trained predictor predicts of ONNX models, for instance their latency, "
        "without running them. The unit is that of the labels it was trained on."
    )
    parser.add_argument("models", type=Path, nargs="+", help="the ONNX files")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="folder with the predictor, as ArchitecturePredictor.save_pretrained writes it",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    _add_inputs(parser)
    parser.set_defaults(run=_predict)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input_shape",
        type=profile_command.named_shape,
        action="append",
        default=[],
        metavar="NAME=1,3,224,224",
        help="shape of an input with dynamic dimensions; repeat it for several inputs",
    )
    parser.add_argument(
        "--input_value",
        type=_named_value,
        action="append",
        default=[],
        metavar="NAME=16000",
        help="value of an input that is a setting, for instance a sampling rate",
    )
    parser.add_argument("--batch_size", type=int, help="the batch size, where it is dynamic")
    parser.add_argument(
        "--runtime",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let ONNX Runtime execute the model for shapes that nothing else finds",
    )


def _convert(args: argparse.Namespace) -> None:
    if args.output is not None and args.output.is_dir():
        raise ValueError(f"Expected '--output' to be a file (got the folder '{args.output}')")
    conversion = convert_onnx(
        args.model,
        input_shapes=dict(args.input_shape) or None,
        input_values=dict(args.input_value) or None,
        batch_size=args.batch_size,
        vocabulary=args.vocabulary,
        counting=args.counting,
        simplify=args.simplify,
        use_runtime=args.runtime,
    )
    print(summary_text(conversion.report))
    if args.output is not None:
        save_graph(args.output, conversion)
        print(f"{'written:':<19}{args.output}")


def _predict(args: argparse.Namespace) -> None:
    predictor = ArchitecturePredictor.from_pretrained(args.checkpoint, args.device)
    conventions: dict[str, Any] = {
        k: predictor.token_encoder.config.get(k) for k in ("vocabulary", "counting")
    }
    if None in conventions.values():
        raise ValueError(
            "Expected '--checkpoint' to be a predictor of ONNX models (got "
            f"{str(args.checkpoint)!r}, a predictor of cells); examples/onnx_latency.py trains one"
        )
    graphs = []
    for path in args.models:
        conversion = convert_onnx(
            path,
            input_shapes=dict(args.input_shape) or None,
            input_values=dict(args.input_value) or None,
            batch_size=args.batch_size,
            use_runtime=args.runtime,
            **conventions,
        )
        if not conversion.report.is_complete:
            log.warning("%s is not known completely; predictions may be off:", path)
            log.warning("%s", summary_text(conversion.report))
        graphs.append(conversion.data)
    for path, values in zip(args.models, predictor.predict(graphs).tolist(), strict=True):
        for name, value, unit in zip(predictor.target_names, values, predictor.units, strict=True):
            print(f"{path}: {name} {value:.4g} {unit}".rstrip())


def save_graph(path: Path, conversion: Conversion) -> None:
    """Writes a graph with its report, so that :meth:`torch.load` reads it without pickled code."""
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
