"""Graphs for networkx, to draw and to exchange."""

from __future__ import annotations

from collections.abc import Sequence

import networkx
from torch_geometric.data import Data

from narformer_pyg.vocabulary import NUM_SLOTS, get_vocabulary


def to_networkx(
    data: Data, vocabulary: str | None = None, node_names: Sequence[str] | None = None
) -> networkx.DiGraph:
    r"""Converts a graph to a :class:`networkx.DiGraph` with its tokens as attributes.

    .. code-block:: python

        graph = to_networkx(from_onnx("resnet18.onnx"), vocabulary="onnx")
        graph.nodes[1]["operator"]  # "Conv"

    Args:
        data (Data): The graph of a cell or of a network.
        vocabulary (str, optional): The operator vocabulary of a network, to write the operators'
            names and the meaning of their definition slots. (default: :obj:`None`)
        node_names (sequence of str, optional): A name for every node, for instance
            :obj:`conversion.node_names`. (default: :obj:`None`)

    Returns:
        networkx.DiGraph: The nodes :obj:`0..N-1` with :obj:`op` and :obj:`position`; for networks
        also with :obj:`attr`; with a vocabulary, :obj:`operator`, :obj:`definition` (slot to
        number) and :obj:`shape` (four output dimensions); with names, :obj:`name`. The graph
        features, if any, are :obj:`graph.graph["static"]`.

    Raises:
        ValueError: If the numbers of names and nodes differ, or an id is not in the vocabulary.
    """
    table = None if vocabulary is None else get_vocabulary(vocabulary)
    num_nodes = int(data.num_nodes or 0)
    if node_names is not None and len(node_names) != num_nodes:
        raise ValueError(
            f"Expected 'node_names' to hold one name for each of the {num_nodes} nodes "
            f"(got {len(node_names)})"
        )
    graph = networkx.DiGraph()
    op, position = data.op.tolist(), data.position.tolist()
    attr = data.attr.tolist() if "attr" in data else None
    for i in range(num_nodes):
        attributes = {"op": op[i], "position": position[i]}
        if attr is not None:
            attributes["attr"] = attr[i]
        if node_names is not None:
            attributes["name"] = node_names[i]
        if table is not None:
            if not 0 <= op[i] < len(table):
                raise ValueError(
                    f"Expected 'data.op' to be ids of the vocabulary {vocabulary!r}, below "
                    f"{len(table)} (got {op[i]})"
                )
            attributes["operator"] = table.operators[op[i]]
            if attr is not None:
                attributes["definition"] = dict(zip(table.slots[op[i]], attr[i], strict=False))
                attributes["shape"] = attr[i][NUM_SLOTS:]
        graph.add_node(i, **attributes)
    graph.add_edges_from(data.edge_index.t().tolist())
    if "static" in data:
        graph.graph["static"] = data.static.flatten().tolist()
    return graph
