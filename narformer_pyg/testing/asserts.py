"""Assertions that every predictor of graphs should satisfy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data


@torch.no_grad()
def assert_batch_invariant(
    predict: Callable[[Batch], Tensor], graphs: Sequence[Data], atol: float = 1e-5
) -> None:
    r"""Asserts that the prediction of a graph does not depend on the graphs it is batched with.

    Each graph is predicted alone, in one batch of all, in two other orders, and in two halves.

    Args:
        predict (callable): Maps a :class:`~torch_geometric.data.Batch` to one row per graph, for
            instance an :class:`~narformer_pyg.predictor.ArchitecturePredictor` in evaluation mode.
        graphs (sequence of Data): At least two graphs.
        atol (float, optional): The largest difference allowed, plus as much relative to the
            prediction. (default: :obj:`1e-5`)

    Raises:
        AssertionError: If a prediction differs; the message says in which batch.
        ValueError: If there are fewer than two graphs.
    """
    if len(graphs) < 2:
        raise ValueError(f"Expected 'graphs' to hold at least two graphs (got {len(graphs)})")
    alone = torch.cat([predict(Batch.from_data_list([graph])) for graph in graphs])
    number = len(graphs)
    shuffled = torch.randperm(number, generator=torch.Generator().manual_seed(0)).tolist()
    for name, order in (
        ("the batch of all graphs", list(range(number))),
        ("the batch in reverse order", list(range(number))[::-1]),
        ("the shuffled batch", shuffled),
        ("the first half of the shuffled batch", shuffled[: number // 2]),
        ("the second half of the shuffled batch", shuffled[number // 2 :]),
    ):
        together = predict(Batch.from_data_list([graphs[i] for i in order]))
        _assert_close(together, alone[order], atol, f"Predictions in {name} differ from")


@torch.no_grad()
def assert_permutation_invariant(
    model: Callable[..., Tensor],
    x: Tensor,
    edge_index: Tensor,
    batch: Tensor | None = None,
    atol: float = 1e-5,
    num_permutations: int = 3,
) -> None:
    r"""Asserts that the output does not depend on the order of nodes and edges.

    Args:
        model (callable): Maps :obj:`x`, :obj:`edge_index` and, if passed, :obj:`batch` to one row
            per graph.
        x (torch.Tensor): Node features :math:`(|\mathcal{V}|, F)`.
        edge_index (torch.Tensor): Edges :math:`(2, |\mathcal{E}|)`.
        batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
        atol (float, optional): The largest difference allowed, plus as much relative to the
            output. (default: :obj:`1e-5`)
        num_permutations (int, optional): The number of orders to try. (default: :obj:`3`)

    Raises:
        AssertionError: If an output differs.
    """
    generator = torch.Generator().manual_seed(0)
    expected = model(x, edge_index) if batch is None else model(x, edge_index, batch)
    for _ in range(num_permutations):
        order = torch.randperm(x.size(0), generator=generator).to(x.device)
        edges = torch.randperm(edge_index.size(1), generator=generator).to(x.device)
        # Node order[i] becomes node i.
        renamed = order.argsort()[edge_index[:, edges]]
        inputs = (x[order], renamed) if batch is None else (x[order], renamed, batch[order])
        _assert_close(model(*inputs), expected, atol, "Outputs of renumbered nodes differ from")


def assert_all_parameters_receive_gradients(module: torch.nn.Module, loss: Tensor) -> None:
    r"""Asserts that the gradient of every parameter exists, is finite and is not all zero.

    Keeps the graph of the loss and does not touch :obj:`grad` of the parameters.

    Args:
        module (torch.nn.Module): The module; parameters without :obj:`requires_grad` are ignored.
        loss (torch.Tensor): A scalar computed from it.

    Raises:
        AssertionError: If a parameter gets no such gradient; the message names all of them.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise AssertionError("The module has no parameters that need gradients")
    gradients = torch.autograd.grad(
        loss, [p for _, p in named], retain_graph=True, allow_unused=True
    )
    problems = []
    for (name, _), gradient in zip(named, gradients, strict=True):
        if gradient is None:
            problems.append(f"{name} (not part of the loss)")
        elif not gradient.isfinite().all():
            problems.append(f"{name} (not finite)")
        elif not gradient.any():
            problems.append(f"{name} (all zero)")
    if problems:
        raise AssertionError(f"Parameters without a useful gradient: {', '.join(problems)}")


def _assert_close(actual: Tensor, expected: Tensor, atol: float, what: str) -> None:
    def message(details: str) -> str:
        return f"{what} those expected\n{details}"

    torch.testing.assert_close(actual, expected, atol=atol, rtol=atol, msg=message)
