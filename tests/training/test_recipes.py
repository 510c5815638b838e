from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from narformer_pyg.nn import OperatorTokenEncoder
from narformer_pyg.nn.models import create_model
from narformer_pyg.training import (
    BEST,
    CELL_RECIPES,
    LATENCY,
    LATENCY_PAPER,
    LATENCY_RECIPES,
    PAPER,
    QUICK,
    RECIPES,
    Recipe,
    get_recipe,
)

VALID = {"name": "test", "epochs": 1, "batch_size": 2, "learning_rate": 1e-3}


def test_paper_recipe_is_that_of_the_paper() -> None:
    assert PAPER.to_dict() == {
        "name": "paper",
        "epochs": 1000,
        "batch_size": 8,  # and 8 copies
        "learning_rate": 1e-4,
        "warmup": 0.1,
        "weight_decay": 0.0,
        "gradient_clip": 0.0,
        "mse_weight": 1.0,
        "log_weight": 0.0,
        "ranking_weight": 0.1,
        "consistency_weight": 0.5,
        "pairwise_weight": 0.0,
        "pairwise_temperature": 1.0,
        "augmentation": "first",
        "num_copies": 1,
        "calibrate": False,
        "min_steps": 0,
        "label_scale": 0.0,
        "model": {"hidden_channels": 512, "num_blocks": 6, "dropout": 0.05},
        "token_encoder": {},
    }


def test_latency_paper_recipe_is_that_of_the_paper() -> None:
    encoder = OperatorTokenEncoder(**LATENCY_PAPER.token_encoder)
    model = create_model(
        "narformer_v2",
        encoder.out_channels,
        static_channels=encoder.static_channels,
        **LATENCY_PAPER.model,
    )
    assert sum(p.numel() for p in model.parameters()) == 2310921
    content = LATENCY_PAPER.to_dict()
    assert (content["epochs"], content["batch_size"], content["learning_rate"]) == (50, 16, 1e-3)
    assert content["label_scale"] == 1.0  # milliseconds
    weights = {name: value for name, value in content.items() if name.endswith("_weight")}
    assert {name for name, value in weights.items() if value} == {"mse_weight"}


def test_names() -> None:
    assert list(RECIPES.values()) == [QUICK, BEST, PAPER, LATENCY, LATENCY_PAPER]
    assert (*CELL_RECIPES, *LATENCY_RECIPES) == tuple(RECIPES)
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert get_recipe(name) is recipe
    with pytest.raises(
        ValueError,
        match=r"'recipe' to be among quick, best, paper, latency, latency_paper \(got 'slow'\)",
    ):
        get_recipe("slow")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_are_plain_values_and_build_models(recipe: Recipe) -> None:
    content = json.loads(json.dumps(recipe.to_dict()))
    assert Recipe(**content) == recipe
    model = create_model("narformer_v2", 16, **recipe.model)
    assert model.config["hidden_channels"] == recipe.model["hidden_channels"]


def test_to_dict_is_a_copy() -> None:
    recipe = Recipe(**VALID, model={"hidden_channels": 8})
    recipe.to_dict()["model"]["hidden_channels"] = 9
    assert recipe.model == {"hidden_channels": 8}
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[
            (name, value, "to be a positive integer")
            for name in ("epochs", "batch_size", "num_copies")
            for value in (0, -1, 1.5, True, "3", None)
        ],
        ("learning_rate", 0.0, "to be positive"),
        ("learning_rate", -1e-3, "to be positive"),
        ("learning_rate", float("nan"), "to be a finite number"),
        ("warmup", -0.1, r"to be in \[0, 1\)"),
        ("warmup", 1.0, r"to be in \[0, 1\)"),
        ("warmup", float("nan"), "to be a finite number"),
        *[
            (name, -0.5, "to be at least 0")
            for name in (
                "weight_decay",
                "mse_weight",
                "log_weight",
                "ranking_weight",
                "consistency_weight",
                "pairwise_weight",
            )
        ],
        ("augmentation", "second", "to be 'first', 'random', 'equivalent' or None"),
        ("augmentation", False, "to be 'first', 'random', 'equivalent' or None"),
    ],
)
def test_wrong_values(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected '{name}' {expected} \(got ") as error:
        Recipe(**{**VALID, name: value})
    assert f"(got {value!r})" in str(error.value)


def test_consistency_needs_augmentation() -> None:
    with pytest.raises(ValueError, match=r"Expected 'augmentation' .*'consistency_weight'"):
        Recipe(**VALID, consistency_weight=0.5)
    Recipe(**VALID, consistency_weight=0.5, augmentation="random", num_copies=3)


def test_least_number_of_steps() -> None:
    recipe = Recipe(**VALID, min_steps=100)
    epochs = recipe.epochs
    assert Recipe(**VALID).num_epochs(1) == epochs
    assert recipe.num_epochs(1) == 100
    assert recipe.num_epochs(3) == max(34, epochs)
    assert recipe.num_epochs(1000) == epochs
    with pytest.raises(ValueError, match=r"'min_steps' to be an integer >= 0 \(got -1\)"):
        Recipe(**VALID, min_steps=-1)
