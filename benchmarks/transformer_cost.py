"""The cost of a cell: NAR-Former V2 against a transformer on all pairs of nodes.

    python benchmarks/transformer_cost.py --out benchmarks/results/transformer_cost.csv

The question of the supplement's Table 2, on this machine: encoding (from arch strings to the codes
of a batch) and inference, one cell at a time and in batches. The transformer is PyTorch's own
encoder with the paper model's width, depth, ratio and head, multi-head attention between all nodes
of a cell, and a first token that is read out, as in NAR-Former. Models are untrained.
"""

from __future__ import annotations

import common
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from narformer_pyg.convert import from_nasbench201
from narformer_pyg.datasets import NASBench201
from narformer_pyg.nn import CellTokenEncoder, PositiveRegressionHead
from narformer_pyg.nn.models import create_model
from narformer_pyg.training import CELL_RECIPES, get_recipe


class GlobalTransformer(torch.nn.Module):
    """PyTorch's transformer encoder on the nodes of a graph and one more token.

    Args:
        in_channels: Size of each node code.
        channels: Width.
        num_layers: Depth.
        num_heads: Heads of the attention.
    """

    def __init__(self, in_channels: int, channels: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.lin_in = torch.nn.Linear(in_channels, channels)
        self.token = torch.nn.Parameter(torch.randn(channels))
        layer = torch.nn.TransformerEncoderLayer(
            channels, num_heads, 4 * channels, dropout=0.05, batch_first=True, norm_first=True
        )
        self.encoder = torch.nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = PositiveRegressionHead(channels, channels)

    def forward(self, x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        """Predicts one number for each graph."""
        nodes, mask = to_dense_batch(self.lin_in(x), batch, batch_size=batch_size)
        token = self.token.expand(batch_size, 1, -1)
        padding = torch.cat([mask.new_zeros(batch_size, 1), ~mask], dim=1)
        states = self.encoder(torch.cat([token, nodes], dim=1), src_key_padding_mask=padding)
        return self.head(states[:, 0])


def main() -> None:
    """Measures, reports and writes the results."""
    parser = common.create_parser(__doc__, repeats=9, threads=2)
    parser.add_argument("--recipe", choices=CELL_RECIPES, default="paper")
    parser.add_argument("--num_layers", type=int, default=6, help="of the transformer (6)")
    parser.add_argument("--num_heads", type=int, default=8, help="of the transformer (8)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 128])
    args = common.parse_args(parser, {"repeats": 2, "batch_sizes": [1, 4], "recipe": "quick"})
    torch.manual_seed(0)
    encoder = CellTokenEncoder()
    config = get_recipe(args.recipe).model
    narformer = create_model("narformer_v2", encoder.out_channels, **config).eval()
    transformer = GlobalTransformer(
        encoder.out_channels, config["hidden_channels"], args.num_layers, args.num_heads
    ).eval()
    space = NASBench201()
    table = [["batch", "encode", "NAR-Former V2", "transformer", "against V2"]]
    sizes = {}
    for size in args.batch_sizes:
        archs = [str(space.cell(i * (len(space) // size))) for i in range(size)]

        def encode(archs: list[str] = archs) -> tuple[Batch, Tensor]:
            batch = Batch.from_data_list([from_nasbench201(arch) for arch in archs])
            return batch, encoder(batch)

        batch, x = encode()

        @torch.no_grad()
        def infer(batch: Batch = batch, x: Tensor = x, size: int = size) -> None:
            narformer(x, batch.edge_index, batch.batch, batch_size=size)

        @torch.no_grad()
        def infer_transformer(batch: Batch = batch, x: Tensor = x, size: int = size) -> None:
            transformer(x, batch.batch, size)

        functions = {
            "encode": encode,
            "narformer_v2": infer,
            "transformer": infer_transformer,
        }
        seconds = common.interleave(functions, args.repeats, warmup=2, min_seconds=0.2)
        each = {name: [s / size for s in values] for name, values in seconds.items()}
        ratios = {name: common.ratio(each["transformer"], each[name]) for name in ("narformer_v2",)}
        sizes[str(size)] = {
            "seconds_per_cell": {name: common.summary(values) for name, values in each.items()},
            "transformer_over": ratios,
        }
        cells = [
            common.format_spread(s, 1e3, 3) for s in sizes[str(size)]["seconds_per_cell"].values()
        ]
        table.append([str(size), *cells, ", ".join(map(common.format_ratio, ratios.values()))])
    parameters = {
        "narformer_v2": sum(p.numel() for p in narformer.parameters()),
        "transformer": sum(p.numel() for p in transformer.parameters()),
    }
    print("Milliseconds a cell:\n")
    print(common.format_table(table))
    print(f"\nParameters: {parameters['narformer_v2']:,} and {parameters['transformer']:,}")
    common.write_results(
        args.out,
        {"settings": common.settings(args), "parameters": parameters, "batch_sizes": sizes},
    )


if __name__ == "__main__":
    main()
