from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from toy_space import ToySpace, value

from narformer_pyg.search import Evaluation, EvaluationLog, RandomSearch, RegularizedEvolution

SPACE: Any = ToySpace()


def entry(number: int, **changes: Any) -> Evaluation:
    content = {"architecture": "abcabcabc", "values": {"value": 1.5}, "error": None}
    return Evaluation(number=number, seconds=0.25, **{**content, **changes})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "search.jsonl"
    log = EvaluationLog(path, {"seed": 1, "sizes": (1, 2)})
    items = [
        entry(0, search_seconds=0.5),
        entry(1, values={}, error="RuntimeError: out\nof memory"),
        entry(2, values={"value": float("nan"), "other": float("-inf")}, error="value is nan"),
    ]
    for item in items:
        log.append(item)
        # It is on the disk at once, one line each.
        assert len(path.read_text("utf-8").splitlines()) == item.number + 2
    log.close()
    again = EvaluationLog(path, {"seed": 1, "sizes": [1, 2]}).history
    assert again[:2] == items[:2]
    assert again[2].values["other"] == -math.inf
    assert math.isnan(again[2].values["value"])
    for line in path.read_text("utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    "damage",
    [
        "[1]", "not JSON", "null", {"number": 7}, {"architecture": 3}, {"seconds": "long"},
        {"values": {}}, {"values": {"value": "nan"}}, {"values": None}, {"unknown": 1},
    ],
)  # fmt: skip
def test_damage_before_the_last_line(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    settings = {"objectives": {"value": "max"}}
    with EvaluationLog(path, settings) as log:
        log.append(entry(0))
    header, whole = path.read_text("utf-8").splitlines()
    line = damage if isinstance(damage, str) else json.dumps({**json.loads(whole), **damage})
    path.write_text(f"{header}\n{line}\n", "utf-8")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"journal of a search .*line 2 is not"):
        EvaluationLog(path, settings)
    assert path.read_bytes() == before


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("one line without an end", "utf-8")
    with pytest.raises(ValueError, match=r"notes.txt' to be the journal of a search"):
        RandomSearch(SPACE).run(value, 3, log=path)
    assert path.read_text("utf-8") == "one line without an end"


def test_two_searches_do_not_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"

    def starts_another(word: str) -> float:
        with pytest.raises(ValueError, match=r"Expected .*to be free .*another search writes to"):
            RandomSearch(SPACE).run(value, 3, log=path)
        return value(word)

    RandomSearch(SPACE).run(starts_another, 3, log=path)
    assert len(RandomSearch(SPACE).run(value, 5, log=path).history) == 5


def test_a_log_of_another_search(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    RandomSearch(SPACE, seed=1).run(value, 3, log=path)
    with pytest.raises(
        ValueError, match=r"settings of the unfinished search .*seed: 1 then, 2 now"
    ):
        RandomSearch(SPACE, seed=2).run(value, 3, log=path)
    with pytest.raises(ValueError, match=r"search: 'RandomSearch' then, 'RegularizedEvolution'"):
        RegularizedEvolution(SPACE, seed=1).run(value, 60, log=path)


def test_architectures_of_another_space(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    RandomSearch(SPACE).run(value, 3, log=path)
    text = path.read_text("utf-8")
    word = json.loads(text.splitlines()[1])["architecture"]
    path.write_text(text.replace(word, "xyz"), "utf-8")
    with pytest.raises(ValueError, match=r"Expected 'log' .*space toy .*'xyz' as evaluation 0"):
        RandomSearch(SPACE).run(value, 5, log=path)


def test_other_proposals_in_the_log_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "search.jsonl"
    settings = RandomSearch(SPACE).settings()
    with EvaluationLog(path, settings) as log:
        log.append(entry(0, architecture="ccccccccc", values={"value": value("ccccccccc")}))

    class Batches(RandomSearch[str]):
        batch_size = 4

        def settings(self) -> dict[str, Any]:
            return settings

    with caplog.at_level(logging.WARNING):
        result = Batches(SPACE).run(value, 8, log=path)
    assert "disagree on the proposals from evaluation 0" in caplog.text
    assert len(result.history) == len({item.architecture for item in result.history}) == 8
    assert result.best is not None
    assert result.best.number == 0
