r"""Exports torchvision networks to ONNX with both of torch's exporters.

::

    python scripts/export_torchvision.py FOLDER

writes ``FOLDER/dynamo/NAME.onnx`` and ``FOLDER/legacy/NAME.onnx`` (``torch.onnx.export`` with
``dynamo=True`` and ``dynamo=False``, nothing else set) and ``FOLDER/export.json``, which has what
torch itself says about each network: FLOPs by :mod:`torch.utils.flop_counter` and parameters.
``benchmarks/torchvision_models.py`` compares the two files and these numbers.

Weights are random, and those with more than 4,096 elements are left out of the files: they take
few megabytes, and all that a conversion reads is in them. A run that was stopped goes on where it
was; a network that fails is recorded and the others go on; what failed is tried again next time.

For some networks the graph of :func:`narformer_pyg.convert.from_torch` is compared with that of
the file.

Needs torchvision and onnxscript beside the package. The version of torchvision is that which goes
with torch, and ``--no-deps`` keeps another torch away::

    pip install torch==2.13.0 onnxscript==0.7.2 onnxruntime==1.32.0 pillow
    pip install --no-deps torchvision==0.28.0
    pip install -e .
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from narformer_pyg._files import atomic_write
from narformer_pyg.convert import convert_onnx, convert_torch
from narformer_pyg.convert.named_networks import import_torchvision
from narformer_pyg.convert.onnx_model.graph import MAX_VALUE_ELEMENTS
from narformer_pyg.profiling.weights import strip_weights

log = logging.getLogger("export_torchvision")

EXPORTERS = ("dynamo", "legacy")
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Network:
    """A network to export.

    Args:
        family: What reports group it by.
        shape: The shape of its input.
        kind: ``"cnn"`` or ``"transformer"``.
        options: Further arguments of its constructor.
    """

    family: str
    shape: tuple[int, ...] = (1, 3, 224, 224)
    kind: str = "cnn"
    options: dict[str, Any] = field(default_factory=dict)


_VIDEO = (1, 3, 16, 112, 112)
# Inference leaves auxiliary heads out, and the files, too. Drawing the first weights takes long.
_INCEPTION = {"aux_logits": False, "init_weights": False}
# The whole network is random, the backbone, too.
_SEGMENTATION = {"weights_backbone": None}

NETWORKS: dict[str, Network] = {
    "alexnet": Network("alexnet"),
    "vgg11": Network("vgg"),
    "vgg16_bn": Network("vgg"),
    "resnet18": Network("resnet"),
    "resnet50": Network("resnet"),
    "resnext50_32x4d": Network("resnext"),
    "wide_resnet50_2": Network("wide_resnet"),
    "densenet121": Network("densenet"),
    "densenet201": Network("densenet"),
    "googlenet": Network("googlenet", options=_INCEPTION),
    "inception_v3": Network("inception", (1, 3, 299, 299), options=_INCEPTION),
    "squeezenet1_0": Network("squeezenet"),
    "squeezenet1_1": Network("squeezenet"),
    "shufflenet_v2_x0_5": Network("shufflenet"),
    "shufflenet_v2_x1_0": Network("shufflenet"),
    "mobilenet_v2": Network("mobilenet_v2"),
    "mobilenet_v3_small": Network("mobilenet_v3"),
    "mobilenet_v3_large": Network("mobilenet_v3"),
    "mnasnet1_0": Network("mnasnet"),
    "efficientnet_b0": Network("efficientnet"),
    "efficientnet_b4": Network("efficientnet", (1, 3, 380, 380)),
    "efficientnet_v2_s": Network("efficientnet_v2"),
    "efficientnet_v2_l": Network("efficientnet_v2"),
    "regnet_x_400mf": Network("regnet"),
    "regnet_y_400mf": Network("regnet"),
    "regnet_y_3_2gf": Network("regnet"),
    "convnext_tiny": Network("convnext"),
    "convnext_small": Network("convnext"),
    "vit_b_16": Network("vit", kind="transformer"),
    "vit_b_32": Network("vit", kind="transformer"),
    "swin_t": Network("swin", kind="transformer"),
    "swin_s": Network("swin", kind="transformer"),
    "swin_v2_t": Network("swin_v2", kind="transformer"),
    "swin_v2_s": Network("swin_v2", kind="transformer"),
    "maxvit_t": Network("maxvit", kind="transformer"),
    "fcn_resnet50": Network("segmentation", options=_SEGMENTATION),
    "deeplabv3_mobilenet_v3_large": Network("segmentation", options=_SEGMENTATION),
    "lraspp_mobilenet_v3_large": Network("segmentation", options=_SEGMENTATION),
    "r3d_18": Network("video", _VIDEO),
    "mc3_18": Network("video", _VIDEO),
    "r2plus1d_18": Network("video", _VIDEO),
    "s3d": Network("video", (1, 3, 16, 224, 224)),
    # Not mvit_v2_s, whose legacy export fills 22 GB of memory and does not end.
    "mvit_v1_b": Network("video", (1, 3, 16, 224, 224), "transformer"),
    "swin3d_t": Network("video", (1, 3, 16, 224, 224), "transformer"),
}
FROM_TORCH = (
    "resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "efficientnet_b0",
    "convnext_tiny", "vit_b_32", "swin_t",
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the exported models")
    parser.add_argument(
        "--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME",
        help=f"which of {', '.join(NETWORKS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--from_torch", nargs="*", choices=list(NETWORKS), default=list(FROM_TORCH),
        metavar="NAME", help="networks whose from_torch is compared with the file (default: "
        f"{', '.join(FROM_TORCH)})",
    )  # fmt: skip
    return parser.parse_args()


def main() -> int:
    """Exports what is missing."""
    args = parse_args()
    logging.basicConfig(format="%(message)s")  # the exporters tell every step at level INFO
    log.setLevel(logging.INFO)
    build = import_torchvision().models.get_model
    path = args.folder / "export.json"
    models = json.loads(path.read_text("utf-8"))["models"] if path.is_file() else {}
    failed = 0
    for name in args.models:
        network = NETWORKS[name]
        models[name] = export_network(
            name,
            network,
            lambda name=name, network=network: build(name, **network.options),
            args.folder,
            models.get(name, {}),
            with_from_torch=name in args.from_torch,
        )
        versions = {package: metadata.version(package) for package in PACKAGES}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"versions": versions, "models": models}, indent=2))
        errors = list(find_errors(models[name]))
        failed += bool(errors)
        log.info("%-30s %s", name, "; ".join(errors) or "exported")
        gc.collect()
    log.info("%d of %d networks exported in both ways", len(args.models) - failed, len(args.models))
    return int(failed > 0)


def export_network(
    name: str,
    network: Network,
    build: Callable[[], nn.Module],
    folder: Path,
    known: dict[str, Any],
    with_from_torch: bool = False,
) -> dict[str, Any]:
    """Exports a network in both ways and says what torch knows about it.

    Args:
        name: Names the files.
        network: Its input, and how it is reported.
        build: Makes the module.
        folder: The folder of the files.
        known: What an earlier run found out.
        with_from_torch: Whether to compare :func:`~narformer_pyg.convert.from_torch`, too.
    """
    record: dict[str, Any] = {
        "family": network.family,
        "kind": network.kind,
        "input_shape": list(network.shape),
    }
    record.update({key: known[key] for key in ("torch", "from_torch") if _is_good(known, key)})
    record["exports"] = {
        exporter: known["exports"][exporter]
        for exporter in EXPORTERS
        if _is_good(known.get("exports", {}), exporter)
        and (folder / exporter / f"{name}.onnx").is_file()
    }
    if "torch" not in record:
        with _failures_in(record, "torch"):
            record["torch"] = count_with_torch(build, network.shape)
    missing = [exporter for exporter in EXPORTERS if exporter not in record["exports"]]
    with_from_torch = with_from_torch and "from_torch" not in record
    if not missing and not with_from_torch:
        return record
    try:
        module = randomised(build())
    except Exception as error:
        record["exports"].update({exporter: {"error": _text(error)} for exporter in missing})
        return record
    example = torch.rand(network.shape)
    for exporter in missing:
        with _failures_in(record["exports"], exporter):
            start = time.perf_counter()
            proto = export(module, example, exporter)
            seconds = time.perf_counter() - start
            path = folder / exporter / f"{name}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(strip_weights(proto, keep_elements=MAX_VALUE_ELEMENTS), path)
            opset = next(o.version for o in proto.opset_import if not o.domain)
            record["exports"][exporter] = {"opset": opset, "seconds": round(seconds, 1)}
            del proto
            gc.collect()
    if with_from_torch:
        with _failures_in(record, "from_torch"):
            record["from_torch"] = compare_from_torch(
                module, example, folder / "dynamo" / f"{name}.onnx"
            )
    return record


def export(module: nn.Module, example: torch.Tensor, exporter: str) -> onnx.ModelProto:
    """Exports a module with one of torch's exporters and their defaults."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            program = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(module, (example,), buffer, dynamo=False)
    return onnx.load_model_from_string(buffer.getvalue())


def randomised(module: nn.Module) -> nn.Module:
    """Gives every weight and statistic a number of its own, and switches to inference.

    Exporters merge weights that are equal, as the biases and scales of new modules are; those of
    trained ones are not.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.1, 0.1, generator=generator)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
                part.running_mean.uniform_(-0.1, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def count_with_torch(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns FLOPs of one run (2 per multiply-accumulate, by operator) and numbers of parameters.

    The run is on the meta device, without numbers: there attention is made of matrix products,
    which :class:`~torch.utils.flop_counter.FlopCounterMode` counts; the fused kernels of a CPU are
    unknown to it and would count as nothing.
    """
    module = build().eval().to("meta")  # some read numbers while they are built
    lost = _count_foldable(module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    by_operator = counter.get_flop_counts().get("Global", {})
    parameters = sum(p.numel() for p in module.parameters())
    return {
        "flops": counter.get_total_flops(),
        "flops_by_operator": {str(op): flops for op, flops in by_operator.items()},
        "parameters": parameters,
        "parameters_after_folding": parameters - sum(lost),
    }


def _count_foldable(module: nn.Module) -> list[int]:
    """Returns a list that a run of the module fills with the parameters that exporters fold away.

    The batch normalisation of a convolution's output becomes part of the convolution: a bias is
    left of two numbers a channel, or nothing if there was a bias before.
    """
    lost: list[int] = []
    convolved: dict[int, tuple[torch.Tensor, bool]] = {}  # tensors are kept, so ids stay theirs

    def see(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(part, nn.modules.conv._ConvNd):
            convolved[id(output)] = (output, part.bias is not None)
        elif isinstance(part, nn.modules.batchnorm._BatchNorm) and id(inputs[0]) in convolved:
            has_bias = convolved[id(inputs[0])][1]
            lost.append((2 if has_bias else 1) * part.num_features)

    for part in module.modules():
        part.register_forward_hook(see)
    return lost


def compare_from_torch(module: nn.Module, example: torch.Tensor, path: Path) -> dict[str, Any]:
    """Compares the graph of a module with that of its exported file."""
    ours, file = convert_torch(module, example, fold_batch_norm=True), convert_onnx(path)
    return {
        "same_operators": ours.report.operators == file.report.operators,
        # Not node by node: independent operators can come in another order.
        "same_graph": (ours.report.operators, ours.report.flops, ours.report.num_edges)
        == (file.report.operators, file.report.flops, file.report.num_edges),
        "operators": sum(ours.report.operators.values()),
    }


def find_errors(record: dict[str, Any]) -> Iterator[str]:
    """Yields what went wrong with a network."""
    for name, part in ({**record["exports"], **record}).items():
        if isinstance(part, dict) and "error" in part:
            yield f"{name}: {part['error']}"


def _is_good(known: dict[str, Any], key: str) -> bool:
    return key in known and "error" not in known[key]


@contextlib.contextmanager
def _failures_in(record: dict[str, Any], key: str) -> Iterator[None]:
    """Records what is raised, so that the other exports go on."""
    try:
        yield
    except Exception as error:  # the exporters' exceptions have no common base
        record[key] = {"error": _text(error)}


def _text(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {str(cause).strip()}".split("\n")[0][:300]


if __name__ == "__main__":
    sys.exit(main())
