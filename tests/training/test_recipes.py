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
        "losses": {"relative_mse": 1.0, "sequence_ranking": 0.1, "architecture_consistency": 0.5},
        "loss_arguments": {},
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
    assert content["losses"] == {"relative_mse": 1.0}


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
        ("warmup", 1.0, r"to be in \[0, 1\)"),
        *[
            (name, value, "to be a number of at least 0")
            for name in ("learning_rate", "warmup", "weight_decay", "gradient_clip", "label_scale")
            for value in (-0.5, float("nan"), float("inf"), "1")
        ],
        ("augmentation", "second", "to be 'first', 'random', 'equivalent' or None"),
        ("augmentation", False, "to be 'first', 'random', 'equivalent' or None"),
    ],
)
def test_wrong_values(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected '{name}' {expected} \(got ") as error:
        Recipe(**{**VALID, name: value})
    assert f"(got {value!r})" in str(error.value)


def test_wrong_losses() -> None:
    for losses, expected in (
        ({"relative_mse": -1.0}, r"'losses\['relative_mse'\]' to be a number of at least 0"),
        ({"relative_mse": 0.0}, "'losses' to have at least one positive weight"),
        ({}, "'losses' to have at least one positive weight"),
        ({"absolute": 1.0}, r"'loss' to be among relative_mse, .*\(got 'absolute'\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            Recipe(**VALID, losses=losses)
    losses = {"relative_mse": 1.0, "architecture_consistency": 0.5}
    with pytest.raises(ValueError, match=r"'augmentation' .* for a loss that compares graphs"):
        Recipe(**VALID, losses=losses)
    Recipe(**VALID, losses=losses, augmentation="random", num_copies=3)


def test_least_number_of_steps() -> None:
    recipe = Recipe(**VALID, min_steps=100)
    epochs = recipe.epochs
    assert Recipe(**VALID).num_epochs(1) == epochs
    assert recipe.num_epochs(1) == 100
    assert recipe.num_epochs(3) == max(34, epochs)
    assert recipe.num_epochs(1000) == epochs
    with pytest.raises(ValueError, match=r"'min_steps' to be an integer >= 0 \(got -1\)"):
        Recipe(**VALID, min_steps=-1)
