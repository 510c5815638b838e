"""NAR-Former V2 with its weights arranged for inference on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch_geometric.typing import Adj

from narformer_pyg.nn.block import NARFormerV2Block
from narformer_pyg.nn.conv import GraphAidedAttentionConv
from narformer_pyg.nn.functional import EPSILON, SortedEdges, graph_aided_attention
from narformer_pyg.nn.grouped_feed_forward import GroupedFeedForward
from narformer_pyg.nn.grouped_linear import split_groups
from narformer_pyg.nn.models.graph_regressor import both_directions, check_graphs, check_static
from narformer_pyg.nn.models.narformer_v2 import NARFormerV2
from narformer_pyg.nn.products import OneDNNProducts
from narformer_pyg.nn.readout import FusionReadout, segment_mean, segment_sum

#: The precisions that weights can be kept in, by the names of Lightning.
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}

# Among so few nodes, the scores of all pairs are less than the preparations of sparse kernels.
_MAX_PAIRED_NODES = 32
# Degrees whose gates are looked up; higher ones are computed.
_NUM_GATES = 64
# The rows that packed weights are arranged for; from 8 on, the number made no difference.
_PACKED_ROWS = 128


class FrozenNARFormerV2(torch.nn.Module):
    r"""A copy of a :class:`~narformer_pyg.nn.models.NARFormerV2` that can only predict, faster.

    The weights are copied into the layout that oneDNN's matrix products read best, the three
    projections of the attention become one product (its aggregation follows the projection), and
    single cells pass without the preparations of sparse kernels. The predictions are those of the
    model in evaluation, within rounding. There are no parameters: later changes of the model do not
    reach the copy, and it cannot be trained, saved or copied; do that with the model.

    Args:
        model (NARFormerV2): A model on the CPU, with :obj:`attention="linear"`.
        precision (str, optional): :obj:`"32-true"`, or :obj:`"bf16-mixed"` for bfloat16 matrix
            products between single precision node states. (default: :obj:`"32-true"`)

    Shapes:
        As in :class:`~narformer_pyg.nn.models.NARFormerV2`.

    Raises:
        ValueError: If the model is of another kind or on another device.
    """

    def __init__(self, model: torch.nn.Module, precision: str = "32-true") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(
                f"Expected 'precision' to be among {', '.join(PRECISIONS)} (got {precision!r})"
            )
        model = _check_model(model)
        self.precision = precision
        self.config = dict(model.config)
        self.in_channels = model.in_channels
        self.out_channels = model.out_channels
        self.static_channels = model.static_channels
        self.undirected = model.undirected
        dtype = PRECISIONS[precision]
        with torch.no_grad():
            blocks = [cast(NARFormerV2Block, block) for block in model.blocks]
            self._blocks = [_Block(block, dtype) for block in blocks]
            ffn = blocks[0].ffn
            # Rows and weights of a grouped product.
            self._num_rows = 0 if ffn is None else ffn.cached_rows
            self._num_grouped = 0 if ffn is None else ffn.lin_1.weights.numel()
            readout = model.readout
            self._fusion = None
            if isinstance(readout, FusionReadout):
                self._fusion = [_Linear(lin, dtype) for lin in (readout.lin_1, readout.lin_2)]
            self._reduce = segment_sum if model.config["readout"] == "sum" else segment_mean
            static = model.lin_static
            self._lin_static = None if static is None else _Linear(static, dtype)
            head = model.head
            self._hidden = [_Linear(lin, dtype) for lin in (head.lin_1, head.lin_2)]
            self._last = _Linear(head.lin_3, torch.float32)
        self.eval()

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        batch: Tensor | None = None,
        static: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Predicts as :meth:`NARFormerV2.forward <narformer_pyg.nn.models.NARFormerV2.forward>`.

        Args:
            x (torch.Tensor): As there.
            edge_index (torch.Tensor): As there.
            batch (torch.Tensor, optional): As there. (default: :obj:`None`)
            static (torch.Tensor, optional): As there. (default: :obj:`None`)
            batch_size (int, optional): As there. (default: :obj:`None`)
        """
        edge_index, batch, batch_size = check_graphs(
            x, edge_index, batch, batch_size, self.in_channels
        )
        check_static(static, batch_size, self.static_channels)
        if x.device.type != "cpu":
            raise ValueError(
                f"Expected 'x' to be on the CPU, which a frozen model is made for (got {x.device})"
            )
        if self.undirected:
            edge_index = both_directions(edge_index)
        edges = _Edges(edge_index, x.size(0))

        if torch.is_autocast_enabled("cpu"):  # would convert what is arranged here on purpose
            with torch.autocast("cpu", enabled=False):
                return self._predict(x, edges, batch, static, batch_size)
        return self._predict(x, edges, batch, static, batch_size)

    def _predict(
        self, x: Tensor, edges: _Edges, batch: Tensor, static: Tensor | None, batch_size: int
    ) -> Tensor:
        x = x.float()
        states = []
        products = OneDNNProducts(x, min(x.size(0), self._num_rows) * self._num_grouped)
        for block in self._blocks:
            x = block(x, edges, products)
            states.append(x)
        if self._fusion is not None:
            means = _means(states, batch, batch_size)  # [num_graphs, num_blocks, channels]
            hidden = self._fusion[0](means.flatten(1)).relu_()
            weights = self._fusion[1](hidden).float().sigmoid_()  # [num_graphs, num_blocks]
            z = (weights.unsqueeze(-1) * means).sum(dim=1)
        else:
            z = self._reduce(states[-1], batch, batch_size)
        if self._lin_static is not None and static is not None:
            z = torch.cat([z, self._lin_static(static).float().relu_()], dim=-1)
        for lin in self._hidden:
            z = lin(z).relu_()
        return torch.nn.functional.softplus(self._last(z).neg_())

    def train(self, mode: bool = True) -> FrozenNARFormerV2:
        r"""Stays in evaluation.

        Raises:
            RuntimeError: If :obj:`mode` is :obj:`True`.
        """
        if mode:
            raise RuntimeError("A frozen model cannot be trained; train the one it was made from")
        return super().train(False)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuses to be copied or pickled, since packed weights cannot be."""
        raise TypeError(
            "A frozen model cannot be copied or pickled; copy the one it was made from and freeze "
            "the copy where it is used"
        )

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.config['hidden_channels']}, "
            f"num_blocks={len(self._blocks)}, precision={self.precision!r})"
        )


def _check_model(model: torch.nn.Module) -> NARFormerV2:
    """Returns the model, or raises unless it computes what is computed here."""
    if type(model) is not NARFormerV2 or model.attention != "linear":
        what = getattr(model, "attention", None)
        raise ValueError(
            "Expected 'model' to be a NARFormerV2 with attention='linear' (got a "
            f"{type(model).__name__}{'' if what is None else f' with attention={what!r}'})"
        )
    for block in cast(Iterable[NARFormerV2Block], model.blocks):
        conv = cast(GraphAidedAttentionConv, block.conv)
        for part, kind in ((conv, GraphAidedAttentionConv), (block.ffn, GroupedFeedForward)):
            if part is not None and type(part) is not kind:
                raise ValueError(
                    "Expected the parts of 'model' to be those that it was built with (got a "
                    f"{type(part).__name__} for a {kind.__name__})"
                )
        if conv.aggr not in ("add", "sum") or conv.flow != "source_to_target":
            raise ValueError(
                "Expected the attention of 'model' to add up messages from source to target (got "
                f"aggr={conv.aggr!r}, flow={conv.flow!r})"
            )
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                "Expected 'model' to be on the CPU in single precision (got "
                f"{parameter.dtype} on {parameter.device} for {name!r}); move it with "
                "'model.to(\"cpu\", torch.float32)', or predict with the model itself"
            )
    return model


class _Linear:
    """A linear map, computed and returned in some precision."""

    def __init__(self, lin: torch.nn.Linear, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = lin.weight.detach().to(dtype, copy=True).contiguous()
        self.bias = None if lin.bias is None else lin.bias.detach().to(dtype, copy=True)
        self.is_packed = _packs(dtype)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _PACKED_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if not self.is_packed:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        out = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return cast(Tensor, out)


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes packed weights of this type here."""
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Edges:
    """The edges that all blocks see, and what they derive from them once."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self.degree = torch.bincount(edge_index[1], minlength=num_nodes)
        self.max_degree = int(self.degree.max()) if num_nodes > 0 else 0
        #: Edges for the sparse kernels, or else the number of those from node j to i at [i, j].
        self.adjacency: SortedEdges | Tensor
        if num_nodes > _MAX_PAIRED_NODES:
            self.adjacency = SortedEdges(edge_index, num_nodes)
        else:
            place = edge_index[1] * num_nodes + edge_index[0]
            counts = torch.bincount(place, minlength=num_nodes**2).float()
            self.adjacency = counts.view(num_nodes, num_nodes)


class _Block:
    """A block without dropout."""

    def __init__(self, block: NARFormerV2Block, dtype: torch.dtype) -> None:
        conv = cast(GraphAidedAttentionConv, block.conv)
        size_in, size_out = conv.in_channels, conv.out_channels
        self.channels = (size_in, size_out)
        self.normalize, self.sigmoid = conv.normalize, conv.sigmoid
        # Queries, values and root features: the projection of an aggregation is the aggregation of
        # the projections. The bias is added once, with the root features.
        zeros = torch.zeros(size_out)
        bias = zeros if conv.lin_l.bias is None else conv.lin_l.bias
        root = torch.empty(0, size_in) if conv.lin_r is None else conv.lin_r.weight
        projections = torch.nn.Linear(size_in, size_in + size_out + root.size(0))
        projections.weight = torch.nn.Parameter(
            torch.cat([conv.lin_qk.weight, conv.lin_l.weight, root])
        )
        projections.bias = torch.nn.Parameter(
            torch.cat([conv.lin_qk.bias, zeros, bias[: root.size(0)]])
        )
        self.has_root = conv.lin_r is not None
        self.bias = bias.clone()
        self.projections = _Linear(projections, dtype)
        self.lin_d = None
        if conv.lin_d is not None:
            self.lin_d = (conv.lin_d.bias.clone(), conv.lin_d.weight.t().clone())
            self.gates = self._gate(torch.arange(_NUM_GATES))
        norm = block.attention_norm
        self.attention_norm = None if norm is None else _layer_norm_arguments(norm)
        ffn = block.ffn
        self.has_ffn = ffn is not None and block.norm is not None
        if ffn is not None and block.norm is not None:
            self.norm = _layer_norm_arguments(block.norm)
            self.num_groups = ffn.num_groups
            self.num_rows = ffn.cached_rows
            self.maps = [
                (
                    lin.bias.to(dtype, copy=True),
                    lin.weights.to(dtype, copy=True),
                    _layer_norm_arguments(norm),
                )
                for lin, norm in ((ffn.lin_1, ffn.norm_1), (ffn.lin_2, ffn.norm_2))
            ]
            scale = torch.ones(size_out) if block.layer_scale is None else block.layer_scale.clone()
            self.scale = split_groups(scale, ffn.num_groups)  # [num_groups, 1, size]
            self.dtype = dtype

    def _gate(self, degree: Tensor) -> Tensor:
        bias, weight = cast(tuple[Tensor, Tensor], self.lin_d)
        return torch.addmm(bias, degree.float().unsqueeze(-1), weight).sigmoid_()

    def __call__(self, x: Tensor, edges: _Edges, products: OneDNNProducts) -> Tensor:
        x = self._attend(x, edges)
        if self.attention_norm is not None:
            x = _layer_norm(x, self.attention_norm)
        elif self.normalize:
            x.div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_(min=1e-12))
        x.relu_()
        if not self.has_ffn:
            return x
        # Node states are read for the last time by the part that they belong to.
        for part in x.split(self.num_rows) if x.size(0) > self.num_rows else (x,):
            hidden = split_groups(_layer_norm(part, self.norm).to(self.dtype), self.num_groups)
            bias, weights, norm = self.maps[0]
            with products:
                hidden = torch.baddbmm(bias, hidden, weights)
            hidden = _layer_norm(hidden, norm).relu_()
            bias, weights, norm = self.maps[1]
            with products:
                hidden = torch.baddbmm(bias, hidden, weights)
            hidden = _layer_norm(hidden, norm).float()
            split_groups(part, self.num_groups).addcmul_(self.scale, hidden)
        return x

    def _attend(self, x: Tensor, edges: _Edges) -> Tensor:
        if self.lin_d is not None:
            if edges.max_degree < _NUM_GATES:
                x = self.gates.index_select(0, edges.degree).mul_(x)
            else:
                x = self._gate(edges.degree).mul_(x)
        size_in, size_out = self.channels
        projected = self.projections(x)  # [num_nodes, size_in + size_out (+ size_out)]
        query = projected[:, :size_in].float()
        query = query.sigmoid() if self.sigmoid else query.contiguous()
        value = projected[:, size_in : size_in + size_out].float()
        root = projected[:, size_in + size_out :] if self.has_root else self.bias
        if isinstance(edges.adjacency, SortedEdges):
            out = graph_aided_attention(query, value.contiguous(), edges.adjacency)
            return out.add_(root)
        # The factor 1 / sqrt(F) of the scores cancels out, but for the constant.
        score = torch.mm(query, query.t()).mul_(edges.adjacency)
        score.div_(score.sum(dim=1, keepdim=True).add_(EPSILON * size_in**0.5))
        return torch.addmm(root.float(), score, value)


#: The size that a layer norm is over, its scale and shift, and what it adds to the variance.
_LayerNormArguments = tuple[torch.Size, Tensor, Tensor, float]


def _layer_norm_arguments(norm: torch.nn.LayerNorm) -> _LayerNormArguments:
    return norm.weight.shape, norm.weight.clone(), norm.bias.clone(), norm.eps


def _layer_norm(x: Tensor, arguments: _LayerNormArguments) -> Tensor:
    """Applies a layer norm over the last dimension, with statistics in single precision."""
    return torch.native_layer_norm(x, *arguments)[0]


def _means(states: list[Tensor], batch: Tensor, batch_size: int) -> Tensor:
    """Returns the mean node state after every block, [num_graphs, num_blocks, channels]."""
    if batch_size == 1 and batch.numel() > 0:
        return torch.stack(states).mean(dim=1).unsqueeze(0)
    return torch.stack([segment_mean(state, batch, batch_size) for state in states], dim=1)
