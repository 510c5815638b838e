from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_in_processes

import narformer_pyg
from narformer_pyg.loader import PairedBatchSampler
from narformer_pyg.loader._batch_sampler import ResumableBatchSampler

SCRIPT = Path(train_in_processes.__file__)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("launcher", ["torchrun", "lightning"])
def test_two_processes_train_as_one_with_the_doubled_batch(launcher: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    train_in_processes.main(str(tmp_path / "one"), 1, 8)
    expected = json.loads((tmp_path / "one.0").read_text("utf-8"))

    checkpoint = tmp_path / "training.ckpt"
    command = [sys.executable, str(SCRIPT), str(tmp_path / "two"), "2", "4", str(checkpoint)]
    if launcher == "torchrun":
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command[1:1] = run
    package = Path(narformer_pyg.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    for rank in range(2):
        result = json.loads((tmp_path / f"two.{rank}").read_text("utf-8"))
        for ours, theirs in zip(result["history"], expected["history"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        assert result["prediction"] == pytest.approx(expected["prediction"], rel=1e-4)
    assert checkpoint.is_file()
    assert [file.name for file in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("num_graphs", [16, 17, 19, 24])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shards_are_parts_of_the_same_batches(num_graphs: int, world_size: int) -> None:
    whole = ResumableBatchSampler(num_graphs, 4 * world_size, True, False, seed=3)
    parts = [ResumableBatchSampler(num_graphs, 4, True, False, seed=3) for _ in range(world_size)]
    for rank, part in enumerate(parts):
        part.shard(rank, world_size)
    for _ in range(2):
        epochs = [list(part) for part in parts]
        assert {len(epoch) for epoch in epochs} == {len(whole)} == {len(parts[0])}
        for batch, *shares in zip(whole, *epochs, strict=True):
            together = torch.cat(shares)
            if len(batch) >= world_size:
                assert torch.equal(together, batch)
            else:
                assert set(together.tolist()) == set(batch.tolist())
                assert len(together) == world_size


def test_shards_keep_pairs_together() -> None:
    parts = [PairedBatchSampler(10, 2, num_copies=3, seed=1) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.shard(rank, 2)
    seen = []
    for part in parts:
        for batch in part:
            originals, copies = batch.chunk(2)
            assert torch.equal(originals, copies % 10)
            assert bool((copies >= 10).all())
            seen += originals.tolist()
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_wrong_shard(rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match=r"rank|world_size"):
        ResumableBatchSampler(4, 2, False, False).shard(rank, world_size)


def test_no_batch_is_left() -> None:
    sampler = ResumableBatchSampler(10, 4, True, True, seed=0)
    with pytest.raises(ValueError, match="no batch would be left"):
        sampler.shard(0, 4)


def test_a_state_of_fewer_processes() -> None:
    alone = ResumableBatchSampler(16, 4, True, False, seed=0)
    epoch = iter(alone)
    for _ in range(3):
        next(epoch)
    state = alone.state_dict()
    other = ResumableBatchSampler(16, 4, True, False, seed=0)
    other.load_state_dict(state)
    with pytest.raises(ValueError, match="as many processes"):
        other.shard(0, 2)
