"""Random networks, family by family, to train latency predictors on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from narformer_pyg.profiling.families import mobile, plain, residual, transformer
from narformer_pyg.profiling.families.graph_builder import GraphBuilder, Value

__all__ = ["FAMILIES", "Family", "generate"]


@dataclass(frozen=True, slots=True)
class Family:
    """A family: a function that draws a network, sizes of images, and factors for channels."""

    build: Callable[[GraphBuilder], Value]
    resolutions: tuple[int, ...]
    widths: tuple[float, float]


_IMAGES = (96, 112, 128, 160, 192, 224)

#: The ten families of NNLQP's latency benchmark, and small vision transformers, by name. Widths
#: are chosen for some 1 to 60 ms on one thread of a current CPU.
FAMILIES: dict[str, Family] = {
    "alexnet": Family(plain.alexnet, _IMAGES, (0.4, 1.8)),
    "vgg": Family(plain.vgg, _IMAGES[:4], (0.18, 0.8)),
    "googlenet": Family(plain.googlenet, _IMAGES, (0.5, 1.8)),
    "resnet": Family(residual.resnet, _IMAGES, (0.45, 1.7)),
    "squeezenet": Family(plain.squeezenet, _IMAGES, (0.8, 2.6)),
    "mobilenet_v2": Family(mobile.mobilenet_v2, _IMAGES, (0.8, 3.2)),
    "mobilenet_v3": Family(mobile.mobilenet_v3, _IMAGES, (1.0, 4.0)),
    "mnasnet": Family(mobile.mnasnet, _IMAGES, (0.8, 3.6)),
    "efficientnet": Family(mobile.efficientnet, _IMAGES, (0.8, 3.0)),
    "nasbench201": Family(residual.nasbench201, (32, 32, 48, 64), (1.2, 5.0)),
    "vit": Family(transformer.vit, (96, 128, 160, 192, 224), (0.8, 3.5)),
}

# Smaller networks are too fast for the clock, larger ones too slow to measure by the thousand. Few
# draws fall outside, so the limits hardly change the distribution of a family.
_MULTIPLY_ACCUMULATES = (1e7, 3e9)
_MOST_PARAMETERS = 50e6
_TRIES = 200


def generate(family: str, rng: np.random.Generator | int) -> ModelProto:
    r"""Draws a network of a family, as an ONNX model of a few kilobytes.

    Kernel sizes, channels, depths, expansions and groups vary per layer, width and resolution per
    network. The model is a float32 inference graph of batch size 1 and opset 17 in the form of a
    PyTorch export (batch normalisation folded into convolutions, SiLU as Sigmoid and Mul, and so
    on). Weights have shapes but no data; see :func:`~narformer_pyg.profiling.materialize`.

    The same seed gives the same model. :obj:`metadata_props` holds :obj:`family`, :obj:`seed`
    (``generate(family, int(seed))`` builds the model again), :obj:`resolution`, :obj:`nodes`,
    :obj:`parameters` and :obj:`multiply_accumulates`; of :obj:`"nasbench201"` also the :obj:`cell`.

    Args:
        family (str): One of :obj:`FAMILIES`.
        rng (numpy.random.Generator or int): The source of randomness, from which one seed is
            drawn, or that seed.

    Raises:
        TypeError: If :obj:`rng` is neither.
        ValueError: If the family is unknown or the seed is negative.
    """
    if family not in FAMILIES:
        raise ValueError(f"Expected 'family' to be among {', '.join(FAMILIES)} (got {family!r})")
    if isinstance(rng, np.random.Generator):
        seed = int(rng.integers(2**63))
    elif isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        seed = int(rng)
    else:
        raise TypeError(
            "Expected 'rng' to be a numpy.random.Generator or an integer seed "
            f"(got {type(rng).__name__}: {rng!r})"
        )
    if seed < 0:
        raise ValueError(f"Expected 'rng' to be a seed >= 0 (got {seed})")
    spec = FAMILIES[family]
    # The name is part of the seed, or seed 0 of all families would be alike in width and depth.
    source = np.random.default_rng([seed, *family.encode()])
    for _ in range(_TRIES):
        resolution = spec.resolutions[int(source.integers(len(spec.resolutions)))]
        low, high = (math.log(width) for width in spec.widths)
        graph = GraphBuilder(source, resolution, math.exp(source.uniform(low, high)))
        output = spec.build(graph)
        least, most = _MULTIPLY_ACCUMULATES
        if least <= graph.multiply_accumulates <= most and graph.parameters <= _MOST_PARAMETERS:
            return graph.build(output, family, {"family": family, "seed": str(seed)})
    raise RuntimeError(f"No network of {family!r} within the limits in {_TRIES} draws of {seed}")
