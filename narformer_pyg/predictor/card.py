"""Model cards: the README.md of a checkpoint, as Hugging Face's hub shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_TAGS = ["neural-architecture-search", "performance-prediction", "graph-neural-network"]
_HOW_TO_LOAD = """

## How to load

```python
from narformer_pyg import ArchitecturePredictor

# the path of this folder, or user/name on the hub
predictor = ArchitecturePredictor.from_pretrained("{name}")
predictor.predict(architectures)  # [num_architectures, num_targets]
```
"""


def model_card(
    name: str, config: Mapping[str, Any], scale: Sequence[float], num_parameters: int
) -> str:
    """Writes the card of a predictor by its configuration."""
    metadata = dict(config["metadata"])
    front = {"library_name": "narformer_pyg", "tags": _TAGS}
    if "license" in metadata:
        front["license"] = metadata.pop("license")
    description, metrics = metadata.pop("description", None), metadata.pop("metrics", None)
    encoder, model = config["token_encoder"], config["model"]["name"]
    what = "whole networks" if "vocabulary" in encoder["config"] else "cells"
    space = f" of the search space `{config['space']}`" if config["space"] else ""
    averaged = ", averaged over cells that compute the same function"
    lines = ["---", *(f"{k}: {json.dumps(v)}" for k, v in front.items()), "---"]
    lines += ["", f"# {name}", "", *([str(description), ""] if description else [])]
    lines += [f"Predicts for {what}{space}:", ""]
    targets = zip(config["target_names"], config["units"], scale, strict=True)
    lines += _table(("target", "unit", "scale"), [(t, u, f"{s:.6g}") for t, u, s in targets])
    lines += [
        "",
        f"A `{model}` of {num_parameters:,} parameters on the codes of the encoder "
        f"`{encoder['name']}`{averaged if config['predictor'] == 'averaged' else ''}.",
    ]
    if metadata:
        lines += ["", "## Training", "", *_table(("", ""), metadata.items())]
    if metrics:
        rows = metrics.items() if isinstance(metrics, dict) else [("", metrics)]
        lines += ["", "## Metrics", "", *_table(("metric", "value"), rows)]
    return "\n".join(lines) + _HOW_TO_LOAD.format(name=name)


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_cell(value) for value in row)} |" for row in lines]


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.replace("|", r"\|").split())
