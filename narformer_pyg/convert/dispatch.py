"""One entrance for everything that can become a graph."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import torch
from torch_geometric.data import Data

from narformer_pyg.convert.darts import from_darts
from narformer_pyg.convert.nasbench101 import from_nasbench101
from narformer_pyg.convert.nasbench201 import from_nasbench201
from narformer_pyg.errors import ConversionError
from narformer_pyg.spaces import NASBench101Cell

# The end of every text of a NASBench101Cell, and of no arch string of NAS-Bench-201.
_NASBENCH101_TEXT = re.compile(r"output~[0-9,]*$")
# The beginning of every genotype, and of no text of the other spaces.
_LIBRARIES = ("timm:", "torchvision:", "hf:")
_DARTS_TEXT = re.compile(r"\s*Genotype\b")


def to_data(architecture: Any, **conventions: Any) -> Data:
    r"""Turns an architecture into a graph, whatever its form.

    .. code-block:: python

        to_data("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
        to_data("resnet18.onnx", vocabulary="nnlqp", counting="nnlqp")
        to_data((network, torch.randn(1, 3, 224, 224)))

    Args:
        architecture: One of these:

            * a cell as text: an arch string of NAS-Bench-201, the text of a
              :class:`~narformer_pyg.spaces.NASBench101Cell`, or a genotype in DARTS' notation,
            * a pair :obj:`(matrix, operations)` of NAS-Bench-101,
            * a cell of a search space: any object with a method :obj:`to_data`,
            * an ONNX model: a path (a string that ends in :obj:`.onnx`, or any
              :class:`os.PathLike`), or an :class:`onnx.ModelProto`,
            * a network of a library by its name, such as :obj:`"timm:resnet50"`, see
              :func:`~narformer_pyg.convert.named_network`,
            * a pair :obj:`(module, example_inputs)` of a :class:`torch.nn.Module` and the arguments
              of one call,
            * a graph, which is returned as it is.
        **conventions (optional): Arguments of :func:`~narformer_pyg.convert.from_onnx` and
            :func:`~narformer_pyg.convert.from_torch`, such as :obj:`vocabulary` and
            :obj:`counting`. They do not apply to cells and graphs.

    Raises:
        ConversionError: If it is none of these, or malformed.
        OSError: If an ONNX file cannot be read.
    """
    if isinstance(architecture, Data):
        return architecture
    if _is_onnx(architecture):
        from narformer_pyg.convert.onnx_model import from_onnx

        return from_onnx(architecture, **conventions)
    if isinstance(architecture, str):
        if architecture.startswith(_LIBRARIES):
            from narformer_pyg.convert.named_networks import named_network
            from narformer_pyg.convert.torch_module import from_torch

            return from_torch(*named_network(architecture), **conventions)
        if _NASBENCH101_TEXT.search(architecture):
            return NASBench101Cell.from_str(architecture).to_data()
        if _DARTS_TEXT.match(architecture):
            return from_darts(architecture)
        return from_nasbench201(architecture)
    if isinstance(architecture, (tuple, list)) and len(architecture) == 2:
        if isinstance(architecture[0], torch.nn.Module):
            from narformer_pyg.convert.torch_module import from_torch

            return from_torch(*architecture, **conventions)
        # Anything that looks like matrix and operations, so that errors are about these.
        if isinstance(architecture[1], (tuple, list)):
            return from_nasbench101(*architecture)
    if hasattr(architecture, "to_data"):
        return architecture.to_data()
    advice = ""
    if isinstance(architecture, torch.nn.Module):
        advice = "; a module needs example inputs: pass (module, example_inputs)"
    raise ConversionError(
        "Expected an architecture to be a NAS-Bench-201 arch string, a genotype in DARTS' "
        "notation, a pair (matrix, operations) of NAS-Bench-101, a cell of a search space, an ONNX "
        "model or its path, a pair (module, example_inputs) or a torch_geometric.data.Data "
        f"(got {type(architecture).__name__}: {architecture!r:.80}){advice}"
    )


def _is_onnx(architecture: Any) -> bool:
    if isinstance(architecture, str):
        return architecture.lower().endswith(".onnx")
    onnx = sys.modules.get("onnx")  # without it loaded, there is no model of its class
    is_model = onnx is not None and isinstance(architecture, onnx.ModelProto)
    return is_model or isinstance(architecture, os.PathLike)
