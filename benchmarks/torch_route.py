r"""Compares the graphs of torch modules by both routes: recorded, and by torch's ONNX exporter.

::

    python benchmarks/torch_route.py --output benchmarks/results/torch_route.csv

For each of 60 networks of timm, ``from_torch(module, example, fold_batch_norm=True)`` and
``from_onnx(export_onnx(module, example))`` are compared: operators and how often each is there,
FLOPs, and the shapes that operators write. A line has the CPU seconds of both routes, too. Lines
that the file has already are kept.

Needs timm, torchvision (see ``scripts/export_torchvision.py``) and onnxscript.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from narformer_pyg.convert import Conversion, convert_onnx, convert_torch, export_onnx
from narformer_pyg.convert.named_networks import import_torchvision

#: Small ones of as many families as there are.
NETWORKS = (
    "resnet18", "resnet50", "resnext50_32x4d", "resnetv2_50", "wide_resnet50_2", "seresnet18",
    "skresnet18", "ecaresnet26t", "res2net50_26w_4s", "resnest14d", "gernet_s", "densenet121",
    "vgg11_bn", "dla34", "hrnet_w18_small", "inception_v3", "inception_v4", "xception41",
    "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv4_conv_small", "mnasnet_100",
    "efficientnet_b0", "efficientnetv2_rw_t", "tf_efficientnet_lite0", "ghostnet_100",
    "lcnet_050", "tinynet_e", "fbnetc_100", "hardcorenas_a", "regnetx_002", "regnety_002",
    "rexnet_100", "nfnet_f0", "dm_nfnet_f0", "eca_nfnet_l0", "repvgg_a0", "mobileone_s0",
    "repvit_m0_9", "fastvit_t8", "convnext_atto", "convnextv2_atto", "convmixer_768_32",
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit3_small_patch16_224",
    "cait_xxs24_224", "xcit_nano_12_p16_224", "levit_128s", "pit_ti_224", "mixer_s32_224",
    "resmlp_12_224", "gmlp_ti16_224", "poolformer_s12", "edgenext_xx_small", "mobilevit_xxs",
    "efficientformer_l1", "coat_lite_tiny", "pvt_v2_b0", "swin_tiny_patch4_window7_224",
)  # fmt: skip
FIELDS = (
    "network", "same_operators", "same_flops", "same_shapes", "nodes", "recorded_s", "exported_s",
    "only_recorded", "only_exported",
)  # fmt: skip


def main() -> None:
    """Compares what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the table (CSV)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import_torchvision()
    rows: dict[str, dict[str, Any]] = {}
    if args.output.is_file():
        with open(args.output, encoding="utf-8", newline="") as file:
            rows = {row["network"]: row for row in csv.DictReader(file)}
    for name in args.networks:
        if name in rows:
            continue
        rows[name] = compare(name)
        print(rows[name], flush=True)
        with open(args.output, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in NETWORKS if name in rows)
    compared = ("same_operators", "same_flops", "same_shapes")
    same = [row for row in rows.values() if all(str(row[key]) == "True" for key in compared)]
    print(f"{len(same)} of {len(rows)} have the same operators, FLOPs and shapes")


def compare(name: str) -> dict[str, Any]:
    """Converts a network by both routes."""
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False).eval()
    for tensor in (*module.parameters(), *module.buffers()):  # as trained ones: none is nothing
        if tensor.is_floating_point() and not tensor.any():
            torch.nn.init.normal_(tensor)
    example = torch.randn(1, *module.pretrained_cfg["input_size"])
    began = time.process_time()
    recorded = convert_torch(module, example, fold_batch_norm=True)
    between = time.process_time()
    exported = convert_onnx(export_onnx(module, example))
    ended = time.process_time()
    ours, theirs = Counter(recorded.report.operators), Counter(exported.report.operators)
    return {
        "network": name,
        "same_operators": ours == theirs,
        "same_flops": recorded.report.flops == exported.report.flops,
        "same_shapes": shapes(recorded) == shapes(exported),
        "nodes": recorded.report.num_nodes,
        "recorded_s": round(between - began, 2),
        "exported_s": round(ended - between, 2),
        "only_recorded": " ".join(f"{key}:{n}" for key, n in (ours - theirs).items()),
        "only_exported": " ".join(f"{key}:{n}" for key, n in (theirs - ours).items()),
    }


def shapes(conversion: Conversion) -> Counter[Any]:
    """Returns how often each operator writes each shape."""
    return Counter(zip(conversion.data.op.tolist(), conversion.node_shapes, strict=True))


if __name__ == "__main__":
    main()
