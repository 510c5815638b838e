from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_space import ToySpace, two_values, value

from narformer_pyg.search import (
    ParetoSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
    Searcher,
    SearchResult,
    hypervolume,
    non_dominated,
    search_recipe,
)

SPACE: Any = ToySpace()
FAST = dataclasses.replace(
    search_recipe(), epochs=12, model={"hidden_channels": 16, "num_blocks": 1, "dropout": 0.0}
)
SMALL = dataclasses.replace(FAST, epochs=2)

Make = Callable[..., Searcher[str]]


def make_random(**kwargs: Any) -> Searcher[str]:
    return RandomSearch(SPACE, **kwargs)


def make_evolution(**kwargs: Any) -> Searcher[str]:
    return RegularizedEvolution(SPACE, population_size=10, sample_size=4, **kwargs)


def make_predictor(**kwargs: Any) -> Searcher[str]:
    sizes = {"initial": 8, "batch_size": 4, "num_mutations": 20, "num_random": 20}
    return PredictorSearch(SPACE, **{"recipe": SMALL, **sizes, **kwargs})


def make_pareto(**kwargs: Any) -> Searcher[str]:
    sizes = {"initial": 8, "batch_size": 4, "population_size": 10, "generations": 2}
    objectives: Any = {"gain": "max", "cost": "min"}
    return ParetoSearch(SPACE, objectives, **{"recipe": SMALL, **sizes, **kwargs})


SINGLE = [make_random, make_evolution, make_predictor]
ALL = [*SINGLE, make_pareto]


def evaluate_all(word: str) -> dict[str, float]:
    return {"value": value(word), **two_values(word)}


def words(result: SearchResult) -> list[str]:
    return [item.architecture for item in result.history]


@pytest.mark.parametrize("make", ALL)
def test_same_seed_same_search(make: Make) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = words(make(seed=3).run(evaluate_all, 16))
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers were used"
    torch.manual_seed(8)
    searcher = make(seed=3)
    assert words(searcher.run(evaluate_all, 16)) == first
    assert words(searcher.run(evaluate_all, 16)) == first, "a searcher keeps no state"
    assert words(make(seed=4).run(evaluate_all, 16)) != first
    assert len(set(first)) == 16


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("cut", ["between lines", "within a line"])
def test_a_killed_search_goes_on(make: Make, cut: str, tmp_path: Path) -> None:
    calls: list[str] = []

    def dies(word: str) -> dict[str, float]:
        calls.append(word)
        if len(calls) == 11:  # within a batch of the searches that have batches
            raise KeyboardInterrupt
        return evaluate_all(word)

    undisturbed = words(make().run(evaluate_all, 18))
    log = tmp_path / "search.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make().run(dies, 18, log=log)
    if cut == "within a line":
        log.write_bytes(log.read_bytes()[:-20])
    assert words(make().run(dies, 18, log=log)) == undisturbed
    assert calls[11:] == undisturbed[9 if cut == "within a line" else 10 :]
    # The whole search is in the log: nothing is left to do.
    del calls[10:]
    assert words(make().run(dies, 18, log=log)) == undisturbed
    # A larger budget goes on from there.
    longer = words(make().run(evaluate_all, 20, log=log))
    assert longer == words(make().run(evaluate_all, 20))
    assert longer[:18] == undisturbed


@pytest.mark.parametrize("make", ALL)
def test_failures_are_recorded_and_the_search_goes_on(make: Make, tmp_path: Path) -> None:
    def fails(word: str) -> dict[str, float]:
        values = evaluate_all(word)
        if word[0] == "a":
            raise RuntimeError("out of memory")
        if word[0] == "b":
            return dict.fromkeys(values, float("nan"))
        return values

    log = tmp_path / "search.jsonl"
    result = make().run(fails, 20, log=log)
    assert len(result.history) == 20
    for item in result.history:
        raised, is_nan = item.architecture[0] == "a", item.architecture[0] == "b"
        assert item.ok == (not raised and not is_nan)
        if raised:
            assert item.error == "RuntimeError: out of memory"
        if is_nan:
            assert item.error is not None
            assert item.error.endswith(" is nan")
    assert 0 < result.num_failed < 20
    assert all(item.ok for item in result.front)
    # Failures are read back as failures.
    again = make().run(fails, 20, log=log).history
    assert [item.error for item in again] == [item.error for item in result.history]


@pytest.mark.parametrize("make", ALL)
def test_a_search_in_which_all_fails_ends(make: Make) -> None:
    def fails(word: str) -> float:
        raise ValueError("broken")

    result = make().run(fails, 16)
    assert result.num_failed == len(result.history) == 16
    assert result.best is None
    assert result.front == []


@pytest.mark.parametrize("make", ALL)
def test_equal_values_everywhere(make: Make) -> None:
    result = make().run(lambda word: {"value": 1.0, "gain": 1.0, "cost": 1.0}, 16)
    assert len(set(words(result))) == 16


@pytest.mark.parametrize("make", SINGLE)
def test_minimising_is_maximising_the_negative(make: Make) -> None:
    down = make(maximize=False).run(value, 20)
    up = make().run(lambda word: -value(word), 20)
    assert words(down) == words(up)
    assert down.best is not None
    assert down.best.values["value"] == min(item.values["value"] for item in down.history)


@pytest.mark.parametrize("make", ALL)
def test_a_small_space_is_exhausted(make: Make) -> None:
    searcher = make()
    searcher.space = ToySpace(3)  # type: ignore[assignment]
    result = searcher.run(evaluate_all, 60)
    assert result.exhausted
    assert len(set(words(result))) == len(result.history) == 27


@pytest.mark.parametrize(
    ("searcher", "budget"),
    [
        (RandomSearch(ToySpace(5)), 240),
        (RegularizedEvolution(SPACE, population_size=20, sample_size=8), 250),
        (PredictorSearch(SPACE, initial=15, recipe=FAST, num_members=1), 75),
    ],
    ids=["random", "evolution", "predictor"],
)
def test_finds_the_optimum(searcher: Searcher[str], budget: int) -> None:
    result = searcher.run(value, budget)
    assert result.best is not None
    assert result.best.architecture == "c" * len(result.best.architecture)


def test_pareto_search_finds_the_front() -> None:
    def volume(points: np.ndarray) -> float:
        return hypervolume(points, [0.0, -9.0])

    search = ParetoSearch(SPACE, {"gain": "max", "cost": "min"}, recipe=FAST, initial=30)
    counts = [(i, j, 9 - i - j) for i in range(10) for j in range(10 - i)]
    everything = [two_values("a" * i + "b" * j + "c" * k) for i, j, k in counts]
    truth = np.array([[item["gain"], -item["cost"]] for item in everything])
    result = search.run(two_values, 90)
    share = volume(search.scores(result.front)) / volume(truth)
    random = RandomSearch(SPACE, objective="gain").run(two_values, 90)
    random_share = volume(search.scores(random.history)) / volume(truth)
    assert share > 0.97
    assert random_share < 0.93
    assert result.best is None
    scores = search.scores(result.history)
    assert [result.history[i] for i in non_dominated(scores)] == result.front


def test_evolution_keeps_the_youngest() -> None:
    # What came first is best by far, so that it would stay a parent if it did not die of age.
    numbers = iter(range(1000))
    search = RegularizedEvolution(SPACE, population_size=5, sample_size=5)
    result = search.run(lambda word: -float(next(numbers)), 40)
    found = words(result)
    for number in range(5, 40):
        distances = [
            sum(a != b for a, b in zip(found[number], living, strict=True))
            for living in found[number - 5 : number]
        ]
        assert min(distances) == 1


def test_evolution_may_repeat() -> None:
    search = RegularizedEvolution(ToySpace(2), population_size=5, sample_size=2, unique=False)
    result = search.run(value, 30)
    assert len(result.history) == 30
    assert not result.exhausted


def test_a_float_and_a_dictionary_are_the_same() -> None:
    numbers = make_evolution().run(value, 20)
    tensors = make_evolution().run(lambda word: {"value": torch.tensor(value(word))}, 20)
    assert words(numbers) == words(tensors)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("budget", [0, -3, 2.5, True, "10", 5])
def test_wrong_budget(make: Make, budget: Any) -> None:
    if budget == 5 and make is make_random:
        assert len(make().run(evaluate_all, budget).history) == 5
        return
    least = r"at least \d+ for .*" if budget == 5 else "a positive integer"
    with pytest.raises(ValueError, match=rf"Expected 'budget' to be {least} \(got {budget!r}\)"):
        make().run(evaluate_all, budget)


@pytest.mark.parametrize(
    ("make", "name", "wrong"),
    [
        (lambda v: RandomSearch(SPACE, seed=v), "seed", -1),
        (lambda v: RandomSearch(SPACE, objective=v), "objective", 3),
        (lambda v: RandomSearch(SPACE, maximize=v), "maximize", "min"),
        (lambda v: RegularizedEvolution(SPACE, population_size=v), "population_size", 0),
        (lambda v: RegularizedEvolution(SPACE, sample_size=v), "sample_size", 51),
        (lambda v: PredictorSearch(SPACE, initial=v), "initial", 1),
        (lambda v: PredictorSearch(SPACE, batch_size=v), "batch_size", 0),
        (lambda v: PredictorSearch(SPACE, num_parents=v), "num_parents", 0),
        (lambda v: PredictorSearch(SPACE, num_mutations=v), "num_mutations", 1.5),
        (lambda v: PredictorSearch(SPACE, num_members=v), "num_members", 0),
        (lambda v: PredictorSearch(SPACE, model=v), "model", "lstm"),
        (lambda v: PredictorSearch(SPACE, device=v), "device", "tpu"),
        (lambda v: PredictorSearch(SPACE, recipe=v), "recipe", "quick"),
        (lambda v: ParetoSearch(SPACE, v), "objectives", {"gain": "max"}),
        (lambda v: ParetoSearch(SPACE, v), "objectives", {"gain": "max", "cost": "less"}),
        (lambda v: make_pareto(population_size=v), "population_size", 1),
        (lambda v: make_pareto(generations=v), "generations", 0),
    ],
)
def test_wrong_arguments(make: Callable[[Any], Any], name: str, wrong: Any) -> None:
    value = wrong["cost"] if isinstance(wrong, dict) and "cost" in wrong else wrong
    with pytest.raises((ValueError, TypeError), match=f"Expected '{name}'") as error:
        make(wrong)
    assert str(value) in str(error.value)


def test_wrong_space_and_evaluate() -> None:
    with pytest.raises(TypeError, match=r"Expected 'space' .*lacks random, mutate"):
        RandomSearch("nasbench201")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected 'space' .*ToySpace"):
        RandomSearch(ToySpace)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected 'evaluate' to be a function .*got 0.9"):
        make_random().run(0.9, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("result", ["0.9", None, True, {"value": "high"}, [0.5, 0.6]])
def test_evaluate_returns_something_else(result: Any) -> None:
    with pytest.raises(TypeError, match="Expected 'evaluate' to return a number or a dictionary"):
        make_random().run(lambda word: result, 5)


def test_evaluate_lacks_the_objective() -> None:
    with pytest.raises(ValueError, match=r"got \['cost', 'gain'\] without \['accuracy'\]"):
        make_random(objective="accuracy").run(two_values, 5)


def test_pareto_search_without_pymoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymoo", None)
    with pytest.raises(ImportError, match=r"pip install \"narformer-pyg\[search\]\""):
        make_pareto()


def test_names_of_searchers() -> None:
    assert repr(make_evolution(seed=2)) == (
        "RegularizedEvolution(toy, seed=2, population_size=10, sample_size=4, unique=True)"
    )
