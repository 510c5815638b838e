"""Networks that are one chain or that fork and join without sums: AlexNet to GoogLeNet."""

from __future__ import annotations

from narformer_pyg.profiling.families.graph_builder import GraphBuilder, Value


def alexnet(g: GraphBuilder) -> Value:
    """`AlexNet <https://arxiv.org/abs/1404.5997>`_: large first kernels, wide linear layers."""
    x = g.activation(g.conv(g.input, g.channels(64), g.pick(7, 9, 11), g.pick(3, 4, 4)), "relu")
    x = g.max_pool(x, g.pick(2, 3), stride=2)
    x = g.activation(g.conv(x, g.channels(192), g.pick(3, 5, 5, 7)), "relu")
    x = g.max_pool(x, g.pick(2, 3), stride=2)
    for base in (384, 256, 256, 256)[: g.between(2, 4)]:
        x = g.activation(g.conv(x, g.channels(base), g.pick(1, 3, 3, 5)), "relu")
    x = g.flatten(g.max_pool(x, g.pick(2, 3), stride=2))
    for _ in range(g.between(1, 2)):
        x = g.activation(g.linear(x, g.channels(2048)), "relu")
    return g.linear(x, g.pick(10, 100, 1000))


def vgg(g: GraphBuilder) -> Value:
    """`VGG <https://arxiv.org/abs/1409.1556>`_: stages of convolutions between poolings."""
    x = g.input
    for base, most in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(g.between(1, most)):
            x = g.activation(g.conv(x, g.channels(base), g.pick(1, 3, 3, 3, 3, 5, 7)), "relu")
        x = g.max_pool(x, 2, stride=2)
    x = g.flatten(x)
    for _ in range(g.between(1, 2)):
        x = g.activation(g.linear(x, g.channels(2048)), "relu")
    return g.linear(x, g.pick(10, 100, 1000))


def squeezenet(g: GraphBuilder) -> Value:
    """`SqueezeNet <https://arxiv.org/abs/1602.07360>`_: fire modules, a convolution at the end."""
    x = g.activation(g.conv(g.input, g.channels(80), g.pick(3, 5, 7), stride=2), "relu")
    x = g.max_pool(x, 3, stride=2, ceil=True)
    for stage, base in enumerate((16, 32, 56)):
        for _ in range(g.between(1, 4)):
            x = _fire(g, x, g.channels(base), g.channels(4 * base), g.channels(4 * base))
        if stage < 2:
            x = g.max_pool(x, 3, stride=2, ceil=True)
    x = g.activation(g.conv(x, g.pick(10, 100, 1000)), "relu")
    return g.flatten(g.global_average_pool(x))


def _fire(g: GraphBuilder, x: Value, squeeze: int, small: int, large: int) -> Value:
    x = g.activation(g.conv(x, squeeze), "relu")
    a = g.activation(g.conv(x, small), "relu")
    b = g.activation(g.conv(x, large, g.pick(3, 3, 3, 5)), "relu")
    return g.concat([a, b])


def googlenet(g: GraphBuilder) -> Value:
    """`GoogLeNet <https://arxiv.org/abs/1409.4842>`_: inception modules of four branches."""
    x = g.activation(g.conv(g.input, g.channels(64), g.pick(3, 5, 7), stride=2), "relu")
    x = g.max_pool(x, 3, stride=2, ceil=True)
    x = g.activation(g.conv(x, g.channels(64)), "relu")
    x = g.activation(g.conv(x, g.channels(192), g.pick(3, 5)), "relu")
    x = g.max_pool(x, 3, stride=2, ceil=True)
    for stage, (base, most) in enumerate(((256, 3), (512, 5), (832, 3))):
        for _ in range(g.between(1, most)):
            x = _inception(g, x, base)
        if stage < 2:
            x = g.max_pool(x, g.pick(2, 3), stride=2, ceil=True)
    return g.classifier(x)


def _inception(g: GraphBuilder, x: Value, base: int) -> Value:
    one = g.activation(g.conv(x, g.channels(base / 4)), "relu")
    three = g.activation(g.conv(x, g.channels(base * 3 / 16)), "relu")
    three = g.activation(g.conv(three, g.channels(base * 3 / 8), g.pick(3, 3, 5)), "relu")
    five = g.activation(g.conv(x, g.channels(base / 16)), "relu")
    five = g.activation(g.conv(five, g.channels(base / 8), g.pick(3, 5, 5, 7)), "relu")
    kernel = g.pick(3, 3, 5)
    pool = g.max_pool(x, kernel, stride=1, pad=kernel // 2, ceil=True)
    pool = g.activation(g.conv(pool, g.channels(base / 8)), "relu")
    return g.concat([one, three, five, pool])
