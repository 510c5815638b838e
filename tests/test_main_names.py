from __future__ import annotations

import subprocess
import sys

import pytest

import narformer_pyg


def test_loading_the_package_does_not_load_torch() -> None:
    script = (
        "import sys, narformer_pyg\n"
        "assert 'ArchitecturePredictor' in dir(narformer_pyg) and narformer_pyg.__version__\n"
        "assert not {'torch', 'numpy', 'onnx'} & set(sys.modules)\n"
        "from narformer_pyg import create_model\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", narformer_pyg.__all__)
def test_main_names(name: str) -> None:
    value = getattr(narformer_pyg, name)
    assert value.__name__ == name
    assert value is getattr(narformer_pyg, name)
    assert name in dir(narformer_pyg)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'narformer_pyg' has no attribute 'foo'"):
        narformer_pyg.foo  # noqa: B018
