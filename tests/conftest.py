from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of small pieces of published data, see its README."""
    return Path(__file__).parent / "data"
