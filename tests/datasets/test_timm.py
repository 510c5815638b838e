from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch_geometric.loader import DataLoader

from narformer_pyg.convert import convert_torch, named_network
from narformer_pyg.datasets import TimmAccuracy, TimmLatency, TimmTable

I9 = "infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo"
GPU = "infer-amp-nchw-pt291-cu130-5090"


@pytest.fixture(scope="module")
def latency() -> TimmLatency:
    return TimmLatency()


class TestTimmLatency:
    def test_published_numbers(self, latency: TimmLatency) -> None:
        place = latency.networks.index("resnet50@224")
        data = latency[place]
        # The publisher's: 4.11 GMACs, 25.56 M parameters; batch normalisation is an operator.
        assert data.static[0].tolist()[:3] == [1, 8_178_368_512, 25_557_032]
        assert data.num_nodes == 176
        assert data.y.shape == (1, len(latency.targets))
        assert data.position.tolist() == list(range(176))
        assert data.edge_index[:, 0].tolist() == [0, 1]
        assert int(latency.batch_sizes(GPU)[place]) == 1024
        assert int(latency.batch_sizes(I9)[place]) == 1
        for name in (GPU, I9):
            column = latency.target_names.index(name)
            assert float(latency.labels(name)[place]) == float(data.y[0, column])

    def test_every_shape_is_known(self, latency: TimmLatency) -> None:
        assert len(latency) > 1_500
        attr = latency._data.attr
        assert bool((attr[:, 8:] >= 0).all())
        assert bool((latency._data.op != 1).all())
        assert bool((latency._data.static > 0).all())
        source, target = latency._data.edge_index
        assert bool((source < target).all())

    def test_selection(self, latency: TimmLatency) -> None:
        dataset = TimmLatency([I9, GPU])
        part = dataset[torch.tensor([5, 3])]
        assert part.networks == [latency.networks[5], latency.networks[3]]
        copied = part.copy()
        assert copied.networks == part.networks
        assert torch.allclose(copied.labels(I9), part.labels(I9), equal_nan=True)
        (batch,) = DataLoader(part, batch_size=2)
        assert batch.y.shape == (2, 2)
        assert batch.vocabulary == ["onnx", "onnx"]

    def test_splits(self, latency: TimmLatency) -> None:
        split = latency.in_domain_split(0.2, 0.1, seed=1)
        models = [network.split("@")[0] for network in latency.networks]
        parts = [
            {models[i] for i in part.tolist()} for part in (split.train, split.val, split.test)
        ]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        left = latency.leave_family_out("vision_transformer")
        assert {latency.families[i] for i in left.test.tolist()} == {"vision_transformer"}
        folds = latency.family_folds(5, seed=2)
        assert sorted(i for fold in folds for i in fold.test.tolist()) == list(range(len(latency)))
        for fold in folds:
            trained = {latency.families[i] for i in fold.train.tolist()}
            assert not trained & {latency.families[i] for i in fold.test.tolist()}

    def test_tables(self, latency: TimmLatency) -> None:
        assert latency.table(I9) == TimmTable(
            I9, "infer", "Core i9-10940X", "fp32", "nchw", "2.4.0", True
        )
        assert latency.table("train-amp-nhwc-pt112-cu113-rtx3090").torch == "1.12"
        assert {target.unit for target in latency.targets.values()} == {"ms"}
        with pytest.raises(ValueError, match="table of timm"):
            TimmTable.from_name("infer-amp-nchw-pt240-cu124-abacus")
        with pytest.raises(ValueError, match="'target'"):
            TimmLatency("fast")

    def test_failures_have_reasons(self, latency: TimmLatency) -> None:
        assert all(reason for reason in latency.failures.values())

    def test_loads_in_a_moment(self) -> None:
        code = (
            "import sys, time; from narformer_pyg.datasets import TimmLatency; t = time.time(); "
            "TimmLatency(); print(time.time() - t); assert 'torchvision' not in sys.modules"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert float(out.stdout) < 5  # under one second on an idle core

    @pytest.mark.parametrize(
        "name",
        [
            "resnet18",
            "vit_tiny_patch16_224",
            "xcit_nano_12_p16_224",
            "nf_resnet50",
            "sequencer2d_s",
        ],
    )
    def test_graphs_are_those_of_the_converter(self, latency: TimmLatency, name: str) -> None:
        pytest.importorskip("timm")
        module, (example,) = named_network(f"timm:{name}")
        conversion = convert_torch(module, example)
        networks = latency.networks
        data = latency[networks.index(f"{name}@{example.size(-1)}")]
        for key in ("op", "attr", "edge_index", "static"):
            assert torch.equal(conversion.data[key], data[key]), key


class TestTimmAccuracy:
    def test_published_numbers(self) -> None:
        dataset = TimmAccuracy("all")
        place = dataset.weights.index("resnet50.a1_in1k")
        assert dataset.target_names == ("top1_acc", "top5_acc")
        assert dataset.networks[place].startswith("resnet50@")
        assert 80 < float(dataset.labels("top1_acc")[place]) < 82
        assert float(dataset[place].y[0, 1]) > float(dataset[place].y[0, 0])
        part = dataset[torch.tensor([place, 0])]
        assert part.copy().weights == [dataset.weights[place], dataset.weights[0]]

    def test_weights_of_a_network_stay_together(self) -> None:
        dataset = TimmAccuracy()
        split = dataset.in_domain_split(0.2, seed=0)
        models = [network.split("@")[0] for network in dataset.networks]
        tested = {models[i] for i in split.test.tolist()}
        assert not tested & {models[i] for i in split.train.tolist()}
