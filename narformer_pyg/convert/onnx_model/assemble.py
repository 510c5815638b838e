"""Step 9: the graph, its totals and the report, whatever it was converted from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from narformer_pyg.convert.onnx_model.counting import count
from narformer_pyg.convert.onnx_model.graph import Graph
from narformer_pyg.convert.onnx_model.infer import RUNGS
from narformer_pyg.convert.onnx_model.inputs import batch_of
from narformer_pyg.convert.onnx_model.report import Conversion, ConversionReport
from narformer_pyg.convert.onnx_model.tokenise import tokenise
from narformer_pyg.vocabulary import get_vocabulary


def assemble(
    graph: Graph,
    emitted: Graph,
    *,
    name: str,
    vocabulary: str,
    counting: str,
    batch_size: int | None,
    num_operators: int,
    notes: Sequence[str],
    parameters: int | None = None,
    modules: Sequence[str] = (),
    folded_flops: int = 0,
) -> Conversion:
    r"""Returns the graph of a network with its report.

    Args:
        graph (Graph): The folded graph, of which the costs are counted.
        emitted (Graph): The graph whose operators become nodes.
        name (str): What was converted.
        vocabulary (str): The operator vocabulary.
        counting (str): The convention of the totals.
        batch_size (int or None): The batch size; by default that of the first input.
        num_operators (int): Operators before anything was folded.
        notes (sequence of str): What else to know.
        parameters (int, optional): The parameters, where they are known better than by the
            constants that operators read. (default: :obj:`None`)
        modules (sequence of str, optional): The module of each operator, by :attr:`Node.index`.
            (default: :obj:`()`)
        folded_flops (int, optional): FLOPs of what was folded and is computed all the same.
            (default: :obj:`0`)
    """
    tokens = tokenise(emitted, get_vocabulary(vocabulary))
    totals = count(graph, counting)
    totals.flops += folded_flops
    if folded_flops:
        totals.flops_by_operator["constants"] = folded_flops
    if parameters is not None:
        totals.parameters = parameters
    batch = batch_size or batch_of(graph.inputs)
    static = [batch, totals.flops, totals.parameters, totals.memory_access]
    num_nodes = tokens.op.numel()
    data = Data(
        op=tokens.op,
        position=torch.arange(num_nodes),
        attr=tokens.attr,
        edge_index=tokens.edge_index,
        static=torch.tensor([static], dtype=torch.double).float(),
        num_nodes=num_nodes,
        vocabulary=vocabulary,
        counting=counting,
    )
    operators = Counter(node.operator for node in emitted.nodes)
    rungs = Counter(
        emitted.rungs[name] for node in emitted.nodes for name in node.outputs
        if name in emitted.rungs
    )  # fmt: skip
    report = ConversionReport(
        name=name,
        vocabulary=vocabulary,
        counting=counting,
        input_shapes={name: type_.dims for name, type_ in graph.inputs.items()},  # type: ignore[misc]
        batch_size=batch,
        num_nodes=num_nodes,
        num_edges=tokens.edge_index.size(1),
        num_folded=num_operators - len({node.index for node in emitted.nodes}),
        flops=totals.flops,
        parameters=totals.parameters,
        memory_access=totals.memory_access,
        operators=dict(operators.most_common()),
        rung=max(rungs, key=RUNGS.index, default=RUNGS[0]),
        shapes_by_rung={name: rungs[name] for name in RUNGS if name in rungs},
        unknown_shapes=tuple(emitted.unknown()),
        unknown_operators=_unknown_operators(emitted, vocabulary),
        uncounted=tuple(totals.uncounted),
        notes=tuple(notes),
        flops_by_operator=dict(totals.flops_by_operator.most_common()),
    )
    shapes = tuple(emitted.type_of(name).dims for name in tokens.names)
    module_of = {}
    if modules:
        module_of = {name: modules[node.index] for node in emitted.nodes for name in node.outputs}
    paths = tuple(module_of.get(name, "") for name in tokens.names)
    return Conversion(data, report, tuple(tokens.names), shapes, paths)


def _unknown_operators(graph: Graph, vocabulary: str) -> dict[str, int]:
    table = get_vocabulary(vocabulary)
    counts = Counter(
        node.operator
        for node in graph.nodes
        if table.id_of(node.op_type, node.domain) == table.unknown_id
    )
    return dict(counts.most_common())
