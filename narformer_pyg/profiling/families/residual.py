"""Networks of sums around blocks of full convolutions: ResNet and NAS-Bench-201."""

from __future__ import annotations

from narformer_pyg.profiling.families.graph_builder import GraphBuilder, Value


def resnet(g: GraphBuilder) -> Value:
    """`ResNet <https://arxiv.org/abs/1512.03385>`_ of basic or (grouped) bottleneck blocks."""
    bottleneck = g.pick(True, False)
    x = g.activation(g.conv(g.input, g.channels(64), g.pick(3, 5, 7), stride=2), "relu")
    x = g.max_pool(x, 3, stride=2, pad=1)
    for stage, base in enumerate((64, 128, 256, 512)):
        # All blocks of a stage end in the same channels, or their sums would not be defined.
        out_channels = g.channels(2 * base if bottleneck else base)
        for k in range(g.between(1, 4)):
            stride = 2 if stage > 0 and k == 0 else 1
            if bottleneck:
                x = _bottleneck_block(g, x, g.channels(base / 2), out_channels, stride)
            else:
                x = _basic_block(g, x, g.channels(base), out_channels, stride)
    return g.classifier(x)


def _basic_block(g: GraphBuilder, x: Value, inner: int, out_channels: int, stride: int) -> Value:
    y = g.activation(g.conv(x, inner, g.pick(1, 3, 3, 3, 5), stride), "relu")
    y = g.conv(y, out_channels, g.pick(1, 3, 3, 3, 5))
    return _join(g, x, y, stride)


def _bottleneck_block(
    g: GraphBuilder, x: Value, inner: int, out_channels: int, stride: int
) -> Value:
    groups = g.pick(*(n for n in (1, 1, 2, 4, 8, 16) if inner % n == 0))
    y = g.activation(g.conv(x, inner), "relu")
    y = g.activation(g.conv(y, inner, g.pick(3, 3, 5, 7), stride, groups), "relu")
    return _join(g, x, g.conv(y, out_channels), stride)


def _join(g: GraphBuilder, x: Value, y: Value, stride: int) -> Value:
    if x.shape != y.shape:
        x = g.conv(x, y.shape[1], 1, stride)
    return g.activation(g.add(y, x), "relu")


def nasbench201(g: GraphBuilder) -> Value:
    r"""The network of a random `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ cell.

    The skeleton is that of :class:`~narformer_pyg.spaces.NASBench201Network`, with a random number
    of channels and of cells. As in every inference export, skip connections, :obj:`none` and
    operations that reach no output have no operator. Cells in which :obj:`none` cuts every path are
    drawn again.
    """
    # Imported here: a family without cells needs no torch.
    from narformer_pyg.spaces.nasbench201 import CELL_EDGES, NASBench201Cell

    live: list[tuple[int, int, str]] = []
    while not live:
        cell = NASBench201Cell.random(g.rng)
        named = zip(CELL_EDGES, cell.operations, strict=True)
        live = _between_input_and_output([(s, t, name) for (s, t), name in named if name != "none"])
    g.notes["cell"] = str(cell)
    channels, num_cells = g.channels(16), g.between(1, 5)
    x = g.conv(g.input, channels, 3)
    for stage in range(3):
        if stage > 0:
            channels *= 2
            y = g.conv(g.activation(x, "relu"), channels, 3, stride=2)
            y = g.conv(g.activation(y, "relu"), channels, 3)
            x = g.add(y, g.conv(g.average_pool(x, 2, stride=2), channels))
        for _ in range(num_cells):
            x = _cell(g, x, live)
    x = g.global_average_pool(g.activation(g.batch_norm(x), "relu"))
    return g.linear(g.flatten(x), g.pick(10, 100, 120))


def _between_input_and_output(edges: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Returns the edges on a path from feature map 0 to feature map 3."""
    reached = {0}
    for source, target, _ in sorted(edges):
        if source in reached:
            reached.add(target)
    needed = {3}
    for source, target, _ in sorted(edges, reverse=True):
        if target in needed:
            needed.add(source)
    return [(s, t, name) for s, t, name in edges if s in reached and t in needed]


def _cell(g: GraphBuilder, x: Value, edges: list[tuple[int, int, str]]) -> Value:
    features = {0: x}
    for source, target, name in edges:
        out = features[source]
        if name == "avg_pool_3x3":
            out = g.average_pool(out, 3, stride=1, pad=1, include_pad=False)
        elif name != "skip_connect":
            out = g.conv(g.activation(out, "relu"), x.shape[1], 3 if name.endswith("3x3") else 1)
        features[target] = g.add(features[target], out) if target in features else out
    return features[3]
