"""Networks of inverted bottlenecks: MobileNetV2, MobileNetV3, MnasNet and EfficientNet."""

from __future__ import annotations

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
    for stage, (base, stride, most) in enumerate(_V2_STAGES):
        out_channels = g.channels(base)
        for k in range(g.between(1, most)):
            expansion = 1 if stage == 0 else g.pick(2, 3, 4, 6, 6, 8)
            x = _inverted_bottleneck(
                g, x, out_channels, g.pick(3, 3, 5, 7), stride if k == 0 else 1, expansion, "relu6"
            )
    x = g.activation(g.conv(x, g.channels(1280)), "relu6")
    return g.linear(g.flatten(g.global_average_pool(x)), g.pick(10, 100, 1000))


def mobilenet_v3(g: GraphBuilder) -> Value:
    r"""`MobileNetV3 <https://arxiv.org/abs/1905.02244>`_: squeeze and excitation, hard swish.

    Half of the networks have HardSwish as one operator and half as HardSigmoid and Mul: files in
    the wild have both.
    """
    swish = g.pick("hard_swish", "hard_swish_decomposed")
    x = g.activation(g.conv(g.input, g.channels(16), 3, stride=2), swish)
    for stage, (base, stride, most) in enumerate(_V3_STAGES):
        out_channels = g.channels(base)
        for k in range(g.between(1, most)):
            x = _inverted_bottleneck(
                g,
                x,
                out_channels,
                g.pick(3, 5, 7),
                stride if k == 0 else 1,
                expansion=1 if stage == 0 else g.pick(2, 3, 4, 6),
                activation="relu" if stage < 3 else swish,
                squeeze=g.pick(0.0, 0.25),
                gate="hard_sigmoid",
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
        out_channels, kernel = g.channels(base), g.pick(3, 5, 7)
        for k in range(g.between(1, most)):
            x = _inverted_bottleneck(
                g, x, out_channels, kernel, stride if k == 0 else 1, g.pick(2, 3, 3, 6), "relu"
            )
    x = g.activation(g.conv(x, g.channels(1280)), "relu")
    x = g.node("ReduceMean", [x], x.shape[:2], axes=[2, 3], keepdims=0)
    return g.linear(x, g.pick(10, 100, 1000))


def efficientnet(g: GraphBuilder) -> Value:
    """`EfficientNet <https://arxiv.org/abs/1905.11946>`_: squeeze and excitation, SiLU."""
    x = g.activation(g.conv(g.input, g.channels(32), 3, stride=2), "silu")
    for stage, (base, stride, most) in enumerate(_EFFICIENT_STAGES):
        out_channels = g.channels(base)
        for k in range(g.between(1, most)):
            expansion = 1 if stage == 0 else g.pick(2, 4, 6, 6)
            x = _inverted_bottleneck(
                g,
                x,
                out_channels,
                g.pick(3, 5, 7),
                stride if k == 0 else 1,
                expansion,
                activation="silu",
                # Of the block's input, as in the paper, not of its inner channels.
                squeeze=0.25 / expansion,
                gate="sigmoid",
            )
    x = g.activation(g.conv(x, g.channels(1280)), "silu")
    return g.linear(g.flatten(g.global_average_pool(x)), g.pick(10, 100, 1000))


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
        y = _squeeze_excite(g, y, max(4, int(np.ceil(inner * squeeze / 4)) * 4), activation, gate)
    y = g.conv(y, out_channels)
    return g.add(x, y) if x.shape == y.shape else y


def _squeeze_excite(g: GraphBuilder, x: Value, squeezed: int, activation: str, gate: str) -> Value:
    # MobileNetV3 always has ReLU in here; EfficientNet has the activation of the block.
    y = g.conv(g.global_average_pool(x), squeezed)
    y = g.activation(y, "silu" if activation == "silu" else "relu")
    y = g.activation(g.conv(y, x.shape[1]), gate)
    return g.node("Mul", [x, y], x.shape)
