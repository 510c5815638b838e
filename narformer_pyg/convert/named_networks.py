"""Networks by their name in timm, torchvision or transformers, built without weights."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from narformer_pyg.errors import ConversionError

#: What the text of a named network begins with.
LIBRARIES = ("timm", "torchvision", "hf")
# Lengths of inputs of which a configuration says nothing.
_TOKENS, _SAMPLES = 128, 16_000
# Schemas are gone when their library is.
_SCHEMAS: list[torch.library.Library] = []


def is_named(text: str) -> bool:
    """Whether a text names a network of a library, for instance :obj:`"timm:resnet50"`."""
    return text.partition(":")[0] in LIBRARIES and ":" in text


def named_network(
    text: str, *, batch_size: int = 1, input_shape: Sequence[int] | None = None
) -> tuple[nn.Module, dict[str, Tensor] | tuple[Tensor, ...]]:
    r"""Builds a network and example inputs on the meta device: no weights, no download of any.

    .. code-block:: python

        data = from_torch(*named_network("timm:resnet50", batch_size=8))
        data = from_torch(*named_network("torchvision:vit_b_16"))
        data = from_torch(*named_network("hf:my_config_folder"))

    Args:
        text (str): :obj:`"timm:NAME"`, :obj:`"torchvision:NAME"` or :obj:`"hf:CONFIG"`, where
            :obj:`CONFIG` is a folder with a ``config.json``, such a file, or a name on the hub.
        batch_size (int, optional): The batch size. (default: :obj:`1`)
        input_shape (sequence of int, optional): The shape of the input, batch size included, where
            it is another than the library's. (default: :obj:`None`)

    Returns:
        tuple: The module, and the arguments of a call.

    Raises:
        ConversionError: If the library has no such network, or needs code from the hub to build it.
        ImportError: If the library is not installed.
    """
    library, _, name = text.partition(":")
    if library not in LIBRARIES or not name:
        raise ConversionError(
            f"Expected the name of a network to be {' or '.join(f'{x}:NAME' for x in LIBRARIES)} "
            f"(got {text!r})"
        )
    if library == "hf":
        module, inputs = _transformer(name, batch_size)
        if input_shape is not None:
            first = next(iter(inputs))
            inputs = {first: inputs[first].new_empty(tuple(input_shape))}
        return module, inputs
    build = _timm if library == "timm" else _torchvision
    module, size = build(name)
    shape = tuple(input_shape) if input_shape is not None else (batch_size, *size)
    return module, (torch.empty(shape, device="meta"),)


def import_torchvision() -> Any:
    """Imports torchvision, whichever build of PyTorch it was compiled for.

    That of PyPI is compiled for a CUDA build. Beside a CPU build it cannot load its own operators,
    and without their schemas not even the import succeeds; timm and transformers import it, too.
    No network here calls these operators, so the schemas alone will do.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _SCHEMAS.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _SCHEMAS[-1].define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        return importlib.import_module("torchvision")


def _library(name: str) -> Any:
    try:
        if name == "torchvision" or importlib.util.find_spec("torchvision") is not None:
            import_torchvision()
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'networks by name need the package {name}; install it with "pip install {name}"'
        ) from error


def _without_weights(build: Callable[[], Any]) -> Any:
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # some compute while they are built
        return build()


def _timm(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    timm = _library("timm")
    if not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise ConversionError(
            f"Expected 'timm:NAME' to be a network of timm {timm.__version__} (got {name!r}; near: "
            f"{', '.join(near) or 'none'})"
        )
    module = _without_weights(lambda: timm.create_model(name, pretrained=False))
    return module, tuple(module.pretrained_cfg["input_size"])


def _torchvision(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    models = _library("torchvision").models
    if name not in models.list_models():
        raise ConversionError(
            f"Expected 'torchvision:NAME' to be a network of torchvision (got {name!r}); "
            "torchvision.models.list_models() has them all"
        )
    options = {"weights": None}
    if "_backbone" in str(models.get_model_builder(name).__annotations__):
        options["weights_backbone"] = None
    module = _without_weights(lambda: models.get_model(name, **options))
    transforms = models.get_model_weights(name).DEFAULT.transforms
    size = getattr(transforms, "keywords", {}).get("crop_size", 224)
    side = [size, size] if isinstance(size, int) else list(size)
    frames = [16] if "video" in models.get_model_builder(name).__module__ else []
    return module, (3, *frames, *side)


def _transformer(name: str, batch_size: int) -> tuple[nn.Module, dict[str, Tensor]]:
    transformers = _library("transformers")
    path = os.path.dirname(name) or "." if name.endswith("config.json") else name
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConversionError(
            f"Expected 'hf:CONFIG' to be a configuration that transformers can build without code "
            f"from the hub (got {name!r}: {reason[:200]})"
        ) from error
    architecture = (getattr(config, "architectures", None) or [""])[0]
    model_class = getattr(transformers, architecture, None)
    if model_class is None:
        module = _without_weights(lambda: transformers.AutoModel.from_config(config))
    else:
        module = _without_weights(lambda: model_class(config))
    return module, _example(module, config, batch_size)


def _example(module: Any, config: Any, batch_size: int) -> dict[str, Tensor]:
    """Returns inputs of the kinds that a model of transformers says it takes."""
    main = module.main_input_name
    tokens = torch.empty(batch_size, _TOKENS, dtype=torch.long, device="meta")
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 224)
    side = [size, size] if isinstance(size, int) else list(size)
    images = (batch_size, getattr(vision, "num_channels", 3), *side)
    if main == "pixel_values":
        return {main: torch.empty(images, device="meta")}
    if main == "input_values":
        return {main: torch.empty(batch_size, _SAMPLES, device="meta")}
    inputs: dict[str, Tensor] = {}
    if main == "input_features":
        bins = getattr(config, "num_mel_bins", 80)
        frames = 2 * getattr(config, "max_source_positions", 1500)
        inputs[main] = torch.empty(batch_size, bins, frames, device="meta")
    else:
        inputs["input_ids"] = tokens
        # Nothing is padded: values of tokens need not be looked at for it.
        module.config.pad_token_id = None
        if hasattr(config, "vision_config"):
            inputs["pixel_values"] = torch.empty(images, device="meta")
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens.clone()
    return inputs
