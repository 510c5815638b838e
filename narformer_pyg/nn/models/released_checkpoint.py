"""Reads checkpoints of the authors' released code."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from narformer_pyg.errors import CheckpointError
from narformer_pyg.nn.models.checkpoint_file import read_checkpoint

# Released name -> ours; "#" stands for the number of the block.
_KEYS = {
    "gnn_layers.#.lin_d.weight": "blocks.#.conv.lin_d.weight",
    "gnn_layers.#.lin_d.bias": "blocks.#.conv.lin_d.bias",
    "gnn_layers.#.lin_qk.weight": "blocks.#.conv.lin_qk.weight",
    "gnn_layers.#.lin_qk.bias": "blocks.#.conv.lin_qk.bias",
    "gnn_layers.#.lin_l.weight": "blocks.#.conv.lin_l.weight",
    "gnn_layers.#.lin_l.bias": "blocks.#.conv.lin_l.bias",
    "gnn_layers.#.lin_r.weight": "blocks.#.conv.lin_r.weight",
    "FFN_layers.#.norm.weight": "blocks.#.norm.weight",
    "FFN_layers.#.norm.bias": "blocks.#.norm.bias",
    "FFN_layers.#.fn.net.0.weights": "blocks.#.ffn.lin_1.weights",
    "FFN_layers.#.fn.net.0.bias": "blocks.#.ffn.lin_1.bias",
    "FFN_layers.#.fn.net.0.normalization_fn.weight": "blocks.#.ffn.norm_1.weight",
    "FFN_layers.#.fn.net.0.normalization_fn.bias": "blocks.#.ffn.norm_1.bias",
    "FFN_layers.#.fn.net.3.weights": "blocks.#.ffn.lin_2.weights",
    "FFN_layers.#.fn.net.3.bias": "blocks.#.ffn.lin_2.bias",
    "FFN_layers.#.fn.net.3.normalization_fn.weight": "blocks.#.ffn.norm_2.weight",
    "FFN_layers.#.fn.net.3.normalization_fn.bias": "blocks.#.ffn.norm_2.bias",
    "layer_scale.#": "blocks.#.layer_scale",
    "fusion_mlp.0.weight": "readout.lin_1.weight",
    "fusion_mlp.0.bias": "readout.lin_1.bias",
    "fusion_mlp.2.weight": "readout.lin_2.weight",
    "fusion_mlp.2.bias": "readout.lin_2.bias",
    "norm_sf_linear.weight": "lin_static.weight",
    "norm_sf_linear.bias": "lin_static.bias",
    "fc_1.weight": "head.lin_1.weight",
    "fc_1.bias": "head.lin_1.bias",
    "fc_2.weight": "head.lin_2.weight",
    "fc_2.bias": "head.lin_2.bias",
    "predictor.weight": "head.lin_3.weight",
    "predictor.bias": "head.lin_3.bias",
}


def convert_released_state_dict(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    r"""Renames the weights of the authors' code and infers the sizes of their model.

    The task follows from the keys: :obj:`fusion_mlp` is in models of accuracy (readout
    :obj:`"fusion"`), :obj:`norm_sf_linear` in models of latency (readout :obj:`"sum"`).

    Args:
        state_dict (dict): Weights by the names of the released code; a prefix :obj:`"module."` of
            parallel training is dropped.

    Returns:
        tuple: The arguments of :class:`~narformer_pyg.nn.models.NARFormerV2`, and its state dict.

    Raises:
        CheckpointError: If a key is unknown or missing, or a weight has an unexpected shape.
    """
    weights: dict[str, Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        key = str(key).removeprefix("module.")
        number = re.search(r"(?<=\.)\d+", key) if not key.startswith("fusion_mlp") else None
        pattern = key if number is None else key[: number.start()] + "#" + key[number.end() :]
        if pattern not in _KEYS or not isinstance(value, Tensor):
            unknown.append(key)
        else:
            block = "" if number is None else number.group()
            weights[_KEYS[pattern].replace("#", block)] = value
    if unknown:
        raise CheckpointError(
            "Expected 'checkpoint' to hold the weights of the authors' NAR-Former V2 (got the "
            f"unknown keys {_some(unknown)})"
        )
    config = _infer_config(weights)
    return config, weights


def check_names_and_shapes(
    weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> None:
    """Raises a :class:`CheckpointError` unless the weights are those of the model, one for one."""
    wrong = [
        f"{key} {list(weights[key].shape)} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in weights and weights[key].shape != shape
    ]
    problems = [
        f"{what}: {_some(keys)}"
        for what, keys in (
            ("missing", sorted(expected.keys() - weights.keys())),
            ("not part of such a model", sorted(weights.keys() - expected.keys())),
            ("of the wrong shape", wrong),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            "Expected 'checkpoint' to hold all weights of one NAR-Former V2 model (got weights "
            f"{'; '.join(problems)}; names are those of narformer_pyg)"
        )


def load_released_checkpoint(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Opens a checkpoint of the authors' code; see :func:`convert_released_state_dict`."""
    content: Any = checkpoint
    if not isinstance(checkpoint, Mapping):
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise CheckpointError(
                "Expected 'checkpoint' to be a file or a state dict "
                f"(got {type(checkpoint).__name__})"
            )
        if not os.path.isfile(checkpoint):
            raise FileNotFoundError(
                f"Expected 'checkpoint' to be a file (got {os.fspath(checkpoint)!r})"
            )
        content = read_checkpoint(checkpoint, "checkpoint")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            "Expected 'checkpoint' to be a state dict or to hold one under the key 'state_dict' "
            f"(got {'an empty one' if content == {} else type(content).__name__})"
        )
    return convert_released_state_dict(content)


def _infer_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    try:
        hidden_channels, in_channels = weights["blocks.0.conv.lin_l.weight"].shape
        num_groups, _, ffn_channels = weights["blocks.0.ffn.lin_1.weights"].shape
        out_channels, _ = weights["head.lin_3.weight"].shape
        static_channels = 0
        if "lin_static.weight" in weights:
            _, static_channels = weights["lin_static.weight"].shape
        ffn_ratio = max(num_groups * ffn_channels // hidden_channels, 1)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            "Expected 'checkpoint' to hold at least one block, its feed-forward network and the "
            f"head (got trouble with {error})"
        ) from error
    blocks = {int(key.split(".")[1]) for key in weights if key.startswith("blocks.")}
    if blocks != set(range(len(blocks))):
        raise CheckpointError(
            "Expected the blocks in 'checkpoint' to be numbered from 0 without a gap "
            f"(got {_some([str(block) for block in sorted(blocks)])})"
        )
    return {
        "in_channels": in_channels,
        "hidden_channels": hidden_channels,
        "num_blocks": len(blocks),
        "out_channels": out_channels,
        "readout": "fusion" if "readout.lin_1.weight" in weights else "sum",
        "static_channels": static_channels,
        "ffn_ratio": ffn_ratio,
        "num_groups": num_groups,
        "degree_gate": "blocks.0.conv.lin_d.weight" in weights,
        "root_weight": "blocks.0.conv.lin_r.weight" in weights,
    }


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
