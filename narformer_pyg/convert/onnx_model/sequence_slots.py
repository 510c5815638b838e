"""The definition slots of recurrent layers and attention."""

from __future__ import annotations

from collections.abc import Callable

from narformer_pyg.convert.onnx_model.graph import Graph, Node

#: Reads a number off an operator, or returns :obj:`None` if a shape that it needs is unknown.
Reader = Callable[[Graph, Node], "float | None"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4, "AttnLSTM": 4}
_MASK_INPUTS: dict[str, tuple[int, ...]] = {
    "Attention": (3,),
    "com.microsoft::Attention": (3,),
    "MultiHeadAttention": (4,),
}
_PAST_INPUTS: dict[str, tuple[int, ...]] = {
    "Attention": (4,), "com.microsoft::Attention": (4,), "MultiHeadAttention": (6,),
    "GroupQueryAttention": (3,),
}  # fmt: skip


def num_heads(graph: Graph, node: Node) -> int | None:
    """Returns the query heads of an attention operator."""
    for name in ("num_heads", "q_num_heads"):
        if node.attributes.get(name):
            return node.attributes[name]
    dims = graph.dims(node.input(0))
    return dims[1] if dims and len(dims) == 4 else None


def _num_kv_heads(graph: Graph, node: Node) -> float | None:
    heads = node.attributes.get("kv_num_heads")
    dims = graph.dims(node.input(1))
    if not heads and node.op_type == "Attention" and not node.domain and dims and len(dims) == 4:
        return dims[1]
    return heads or num_heads(graph, node)


def head_size(graph: Graph, node: Node) -> int | None:
    """Returns the size of a query head of an attention operator."""
    heads, dims = num_heads(graph, node), graph.dims(node.input(0))
    if not dims or not heads:
        return None
    if len(dims) == 4:
        return dims[3]
    if node.domain and node.op_type in ("Attention", "QAttention"):
        sizes = node.attributes.get("qkv_hidden_sizes")
        weight = graph.dims(node.input(1))
        total = sizes[0] if sizes else (weight or (0, 0))[1] // 3
        return total // heads
    return dims[-1] // heads


def query_length(graph: Graph, node: Node) -> int | None:
    """Returns the number of queries of an attention operator."""
    dims = graph.dims(node.input(0))
    return None if not dims else dims[2] if len(dims) == 4 else dims[1]


def key_length(graph: Graph, node: Node) -> int | None:
    """Returns the number of keys of an attention operator, past ones included."""
    packed = node.domain and node.op_type in ("Attention", "QAttention")
    dims = graph.dims(node.input(0 if packed or not node.input(1) else 1))
    if not dims:
        return None
    past = graph.dims(next((node.input(i) for i in _positions(_PAST_INPUTS, node)), ""))
    return (dims[2] if len(dims) == 4 else dims[1]) + (past[-2] if past and len(past) >= 4 else 0)


def _positions(table: dict[str, tuple[int, ...]], node: Node) -> tuple[int, ...]:
    return table.get(node.operator, table.get(node.op_type, ()))


def _present(table: dict[str, tuple[int, ...]]) -> Reader:
    return lambda graph, node: float(any(node.input(i) for i in _positions(table, node)))


def _causal(graph: Graph, node: Node) -> float:
    causal = node.attributes.get("is_causal") or node.attributes.get("unidirectional")
    return float(bool(causal) or node.op_type in ("GroupQueryAttention",))


def _hidden_size(graph: Graph, node: Node) -> float | None:
    if "hidden_size" in node.attributes:
        return node.attributes["hidden_size"]
    dims = graph.dims(node.input(1))
    return dims[1] // _GATES[node.op_type] if dims else None


def _dim(position: int, i: int) -> Reader:
    def read(graph: Graph, node: Node) -> float | None:
        dims = graph.dims(node.input(position))
        return None if dims is None else dims[i]

    return read


def _sequence_length(graph: Graph, node: Node) -> float | None:
    return _dim(0, 1 if node.attributes.get("layout") else 0)(graph, node)


def _directions(graph: Graph, node: Node) -> float:
    return 2 if node.attributes.get("direction") == "bidirectional" else 1


#: Slot to the function that reads it.
SEQUENCE_READERS: dict[str, Reader] = {
    "hidden_size": _hidden_size,
    "input_size": _dim(0, -1),
    "num_directions": _directions,
    "sequence_length": _sequence_length,
    "linear_before_reset": lambda graph, node: node.attributes.get("linear_before_reset", 0),
    "layout": lambda graph, node: node.attributes.get("layout", 0),
    "num_heads": num_heads,
    "num_kv_heads": _num_kv_heads,
    "head_size": head_size,
    "causal": _causal,
    "query_length": query_length,
    "key_length": key_length,
    "has_mask": _present(_MASK_INPUTS),
    "has_past": _present(_PAST_INPUTS),
}
