from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import narformer_pyg

PACKAGE = Path(narformer_pyg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import, besides itself. Those of BASE are for everybody.
BASE = {"", "errors", "_files", "_checks", "_registry", "vocabulary"}
ALLOWED = {
    "": {"convert", "nn.models", "predictor"},  # on first use of a main name
    "errors": set(),
    "_files": set(),
    "_checks": set(),
    "_registry": set(),
    "vocabulary": set(),
    "spaces": BASE,
    "convert": BASE | {"spaces"},
    "loader": BASE,
    "datasets": BASE | {"spaces", "convert"},
    "transforms": BASE | {"spaces", "convert"},
    "nn": BASE,
    "nn.models": BASE | {"nn"},
    "predictor": BASE | {"nn", "nn.models", "convert", "loader", "spaces"},
}
BELOW_TRAINING = set(ALLOWED)
ALLOWED["training"] = BELOW_TRAINING
ALLOWED["profiling"] = BASE | {"spaces", "convert"}
ALLOWED["search"] = BELOW_TRAINING | {"training"}
ALLOWED["testing"] = BELOW_TRAINING | {"training"}
ALLOWED["cli"] = BELOW_TRAINING | {"training", "profiling", "search", "testing"}
ALLOWED["__main__"] = ALLOWED["cli"] | {"cli"}


def room(module: str) -> str:
    """Returns the room of a module, by its name below the package."""
    if module == "nn.models" or module.startswith("nn.models."):
        return "nn.models"
    return module.split(".")[0] if (PACKAGE / module.split(".")[0]).exists() else module


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Yields line and name below the package of every import, of those in functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute in this package"
            # `from narformer_pyg import nn` names a module, `from narformer_pyg.nn import X` none.
            assert node.module is not None
            names = [node.module]
            if node.module == "narformer_pyg":
                names = [f"narformer_pyg.{alias.name}" for alias in node.names]
            elif node.module == "narformer_pyg.nn":
                names += ["narformer_pyg.nn.models" for a in node.names if a.name == "models"]
        for name in names:
            if name == "narformer_pyg.__version__":
                yield node.lineno, ""
            elif name.split(".")[0] == "narformer_pyg":
                yield node.lineno, name.removeprefix("narformer_pyg").lstrip(".")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    here = room(module_name(path))
    assert here in ALLOWED, f"say in this test what {here!r} may import"
    for line, name in imported_modules(path):
        there = room(name)
        assert there == here or there in ALLOWED[here], f"{path}:{line} imports {name}"


def test_the_check_sees_imports(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import narformer_pyg.training.report\n"
        "def f():\n"
        "    from narformer_pyg import nn, __version__\n"
        "    from narformer_pyg.nn.models.registry import create_model\n",
        "utf-8",
    )
    found = [(line, room(name)) for line, name in imported_modules(path)]
    assert found == [(1, "training"), (3, "nn"), (3, ""), (4, "nn.models")]


def is_command(path: Path) -> bool:
    """Whether a module belongs to the command line, which prints."""
    return module_name(path) in ("cli", "__main__") or path.stem == "command"


@pytest.mark.parametrize("path", [p for p in MODULES if not is_command(p)], ids=module_name)
def test_the_package_does_not_print(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not (isinstance(node, ast.Name) and node.id == "print"), f"{path}:{node.lineno}"


def run_python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_light_rooms_do_not_load_lightning_or_matplotlib() -> None:
    script = (
        "import sys\n"
        "import narformer_pyg.predictor, narformer_pyg.nn.models, narformer_pyg.spaces\n"
        "import narformer_pyg.convert, narformer_pyg.datasets, narformer_pyg.loader\n"
        "import narformer_pyg.transforms\n"
        "assert len(narformer_pyg.datasets.NASBench201()) == 15625\n"
        "heavy = {'lightning', 'pytorch_lightning', 'matplotlib', 'narformer_pyg.training'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert run_python(script) == "[]"


def test_plots_alone_load_matplotlib() -> None:
    # Lightning loads it where it is installed, so what training itself does is read in its source.
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "matplotlib" for name in names), path


def test_training_without_lightning_says_how_to_get_it() -> None:
    script = (
        "import sys\n"
        "sys.modules['lightning'] = None\n"
        "try:\n"
        "    import narformer_pyg.training\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "'pip install \"narformer-pyg[train]\"'" in run_python(script)
