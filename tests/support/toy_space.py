from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch_geometric.data import Data

LENGTH = 9


class ToySpace:
    """Words of nine letters among three, as chains; 19,683 architectures."""

    name = "toy"

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length

    def random(self, rng: np.random.Generator) -> str:
        return "".join("abc"[i] for i in rng.integers(3, size=self.length))

    def mutate(self, architecture: str, rng: np.random.Generator) -> str:
        neighbors = self.neighbors(architecture)
        return neighbors[int(rng.integers(len(neighbors)))]

    def neighbors(self, architecture: str) -> list[str]:
        return list(self._neighbors(architecture))

    def _neighbors(self, word: str) -> Iterator[str]:
        for i in range(len(word)):
            for letter in "abc":
                if letter != word[i]:
                    yield word[:i] + letter + word[i + 1 :]

    def key(self, architecture: str) -> str:
        return architecture

    def to_data(self, architecture: str) -> Data:
        nodes = torch.arange(self.length)
        return Data(
            op=torch.tensor(["abc".index(letter) for letter in architecture]),
            position=nodes,
            edge_index=torch.stack([nodes[:-1], nodes[1:]]),
            num_nodes=self.length,
        )

    def format(self, architecture: str) -> str:
        return architecture

    def parse(self, text: str) -> str:
        if len(text) != self.length or set(text) - set("abc"):
            raise ValueError(f"Not a word of this space: {text!r}")
        return text


def value(word: str) -> float:
    """A smooth objective: letters have values that depend on their place; 'ccc...c' is best."""
    return float(sum("abc".index(letter) * (1 + 0.2 * i) for i, letter in enumerate(word)))


def two_values(word: str) -> dict[str, float]:
    """Two that contradict each other: 'c' is good for one, bad for the other; 'b' is a bargain."""
    gain = sum({"a": 0.0, "b": 0.8, "c": 1.0}[letter] for letter in word)
    cost = sum({"a": 0.2, "b": 0.3, "c": 1.0}[letter] for letter in word)
    return {"gain": gain, "cost": cost}
