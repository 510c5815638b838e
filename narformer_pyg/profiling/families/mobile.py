"""Networks of inverted bottlenecks: MobileNetV2, MobileNetV3, MnasNet and EfficientNet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from narformer_pyg.profiling.families.graph_builder import GraphBuilder, Value

# (channels, stride, most blocks) of the stages, after each paper's base network.
_V2_STAGES = ((16, 1, 1), (24, 2, 3), (32, 2, 4), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1))
_V3_STAGES = ((16, 1, 1), (24, 2, 2), (40, 2, 3), (80, 2, 4), (112, 1, 2), (160, 2, 3))
_MNAS_STAGES = ((24, 2, 3), (40, 2, 3), (80, 2, 3), (96, 1, 2), (192, 2, 4), (320, 1, 1))
_EFFICIENT_STAGES = (
    (16, 1, 1), (24, 2, 2), (40, 2, 2), (80, 2, 3), (112, 1, 3), (192, 2, 4), (320, 1, 1),
)  # fmt: skip


def mobilenet_v2(g: GraphBuilder) -> Value:
    """`MobileNetV2 <https://arxiv.org/abs/1801.04381>`_: ReLU6, which exports as Clip."""
    x = g.activation(g.conv(g.input, g.channels(32), 3, stride=2), "relu6")
    for stage, channels, stride in _blocks(g, _V2_STAGES):
        expansion = 1 if stage == 0 else g.pick(2, 3, 4, 6, 6, 8)
        x = _inverted_bottleneck(g, x, channels, g.pick(3, 3, 5, 7), stride, expansion, "relu6")
    return g.classifier(g.activation(g.conv(x, g.channels(1280)), "relu6"))


def mobilenet_v3(g: GraphBuilder) -> Value:
    r"""`MobileNetV3 <https://arxiv.org/abs/1905.02244>`_: squeeze and excitation, hard swish.

    Real files have HardSwish as one operator or as HardSigmoid and Mul; half of the networks have
    each form.
    """
    swish = g.pick("hard_swish", "hard_swish_decomposed")
    x = g.activation(g.conv(g.input, g.channels(16), 3, stride=2), swish)
    for stage, channels, stride in _blocks(g, _V3_STAGES):
        kernel, expansion = g.pick(3, 5, 7), 1 if stage == 0 else g.pick(2, 3, 4, 6)
        squeeze, kind = g.pick(0.0, 0.25), "relu" if stage < 3 else swish
        x = _inverted_bottleneck(
            g, x, channels, kernel, stride, expansion, kind, squeeze, "hard_sigmoid"
        )
    x = g.activation(g.conv(x, g.channels(960)), swish)
    x = g.activation(g.linear(g.flatten(g.global_average_pool(x)), g.channels(1280)), swish)
    return g.linear(x, g.pick(10, 100, 1000))


def mnasnet(g: GraphBuilder) -> Value:
    """`MnasNet <https://arxiv.org/abs/1807.11626>`_: kernels 3 and 5, a mean as ReduceMean."""
    x = g.activation(g.conv(g.input, g.channels(32), 3, stride=2), "relu")
    x = g.activation(g.conv(x, x.shape[1], 3, groups=x.shape[1]), "relu")
    x = g.conv(x, g.channels(16))
    for base, stride, most in _MNAS_STAGES:
        channels, kernel = g.channels(base), g.pick(3, 5, 7)
        for k in range(g.between(1, most)):
            step, expansion = stride if k == 0 else 1, g.pick(2, 3, 3, 6)
            x = _inverted_bottleneck(g, x, channels, kernel, step, expansion, "relu")
    x = g.activation(g.conv(x, g.channels(1280)), "relu")
    x = g.node("ReduceMean", [x], x.shape[:2], axes=[2, 3], keepdims=0)
    return g.linear(x, g.pick(10, 100, 1000))


def efficientnet(g: GraphBuilder) -> Value:
    """`EfficientNet <https://arxiv.org/abs/1905.11946>`_: squeeze and excitation, SiLU."""
    x = g.activation(g.conv(g.input, g.channels(32), 3, stride=2), "silu")
    for stage, channels, stride in _blocks(g, _EFFICIENT_STAGES):
        expansion = 1 if stage == 0 else g.pick(2, 4, 6, 6)
        # The paper squeezes a quarter of the channels of the block's input, not of the inner ones.
        squeeze = 0.25 / expansion
        x = _inverted_bottleneck(
            g, x, channels, g.pick(3, 5, 7), stride, expansion, "silu", squeeze
        )
    return g.classifier(g.activation(g.conv(x, g.channels(1280)), "silu"))


def _blocks(
    g: GraphBuilder, stages: tuple[tuple[int, int, int], ...]
) -> Iterator[tuple[int, int, int]]:
    """Draws the blocks of all stages: the stage, output channels and stride of each."""
    for stage, (base, stride, most) in enumerate(stages):
        channels = g.channels(base)
        for k in range(g.between(1, most)):
            yield stage, channels, stride if k == 0 else 1


def _inverted_bottleneck(
    g: GraphBuilder,
    x: Value,
    out_channels: int,
    kernel: int,
    stride: int,
    expansion: int,
    activation: str,
    squeeze: float = 0.0,
    gate: str = "sigmoid",
) -> Value:
    """Expand, depthwise convolution, squeeze and excite, project; a sum where shapes allow it."""
    inner = x.shape[1] * expansion
    y = x if expansion == 1 else g.activation(g.conv(x, inner), activation)
    y = g.activation(g.conv(y, inner, kernel, stride, groups=inner), activation)
    if squeeze > 0:
        squeezed = max(4, int(np.ceil(inner * squeeze / 4)) * 4)
        # MobileNetV3 always has ReLU in here; EfficientNet has the activation of the block.
        z = g.conv(g.global_average_pool(y), squeezed)
        z = g.activation(z, "silu" if activation == "silu" else "relu")
        z = g.activation(g.conv(z, inner), gate)
        y = g.node("Mul", [y, z], y.shape)
    y = g.conv(y, out_channels)
    return g.add(x, y) if x.shape == y.shape else y
