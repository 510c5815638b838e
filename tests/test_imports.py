from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import networkx as nx
import pytest

import narformer_pyg

PACKAGE = Path(narformer_pyg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms that each room may import, besides itself. Everybody may import those of BASE.
BASE = {
    "",
    "errors",
    "_cuda_graphs",
    "_files",
    "_processes",
    "_checks",
    "_lazy",
    "_registry",
    "threads",
    "vocabulary",
}
ALLOWED = {
    "": {"_lazy", "convert", "predictor", "nn.models"},  # the main names, loaded at first use
    "errors": set(),
    "_cuda_graphs": set(),
    "_files": set(),
    "_processes": set(),
    "_checks": set(),
    "_registry": set(),
    "_lazy": set(),
    "threads": set(),
    "vocabulary": BASE,
    "spaces": BASE,
    "convert": BASE | {"spaces"},
    "nn.kernels": BASE,
    "nn": BASE | {"nn.kernels"},
    "nn.models": BASE | {"nn", "nn.kernels"},
    "loader": BASE,
    "datasets": BASE | {"spaces", "convert"},
    "transforms": BASE | {"spaces", "convert"},
}
ALLOWED["predictor"] = BASE | {"nn", "nn.models", "nn.kernels", "convert", "spaces", "loader"}
ALLOWED["training"] = set(ALLOWED)
ALLOWED["profiling"] = BASE | {"spaces", "convert"}
ALLOWED["search"] = ALLOWED["training"] | {"training"}
ALLOWED["testing"] = BASE
ALLOWED["cli"] = ALLOWED["training"] | {"training", "profiling", "search", "testing"}
ALLOWED["__main__"] = ALLOWED["cli"] | {"cli"}


def module_name(path: Path) -> str:
    """Returns the name of a module below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {module_name(path) for path in MODULES}


def room(module: str) -> str:
    """Returns the room of a module, by its name below the package."""
    first, _, rest = module.partition(".")
    if first == "nn" and rest.split(".")[0] in ("kernels", "models"):
        return f"nn.{rest.split('.')[0]}"
    return first


def imported_modules(path: Path, known: Set[str] = NAMES) -> Iterator[tuple[int, str]]:
    """Yields line and name below the package of every imported module of the package.

    Imports in functions and for type checkers count too, and so does :obj:`__version__`.
    """
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute in this package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, module = name.partition(".")
            if package != "narformer_pyg":
                continue
            while module not in known | {"", "__version__"}:  # something in a module
                module = module.rpartition(".")[0]
            yield node.lineno, module


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Returns the sets of modules that import each other, directly or through others."""
    graph = nx.DiGraph([(module, other) for module in edges for other in edges[module]])
    strong = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    return sorted(strong) + [[module] for module in nx.nodes_with_selfloops(graph)]


def test_there_are_no_circles() -> None:
    # The version is set before the package's main names are looked up: importing it waits for none.
    edges = {
        module_name(path): {name for _, name in imported_modules(path)} - {"__version__"}
        for path in MODULES
    }
    assert circles(edges) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    here = room(module_name(path))
    assert here in ALLOWED, f"say in this test what {here!r} may import"
    for line, name in imported_modules(path):
        there = "" if name == "__version__" else room(name)
        assert there == here or there in ALLOWED[here], f"{path}:{line} imports {name}"


def test_the_check_sees_imports(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import narformer_pyg.training.report\n"
        "def f():\n"
        "    from narformer_pyg import nn, __version__, to_data\n"
        "    from narformer_pyg.nn.models.registry import create_model\n"
        "    from narformer_pyg.nn import models, CellTokenEncoder\n",
        "utf-8",
    )
    known = {"", "training", "training.report", "nn", "nn.models", "nn.models.registry"}
    assert list(imported_modules(path, known)) == [
        (1, "training.report"), (3, "nn"), (3, "__version__"), (3, ""),
        (4, "nn.models.registry"), (5, "nn.models"), (5, "nn"),
    ]  # fmt: skip
    assert room("nn.models.registry") == "nn.models"
    assert room("nn.kernels") == "nn.kernels"
    assert room("nn.conv.message_passing") == "nn"


def test_the_check_sees_circles() -> None:
    assert circles({"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": {"c"}}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"a", "b"}}) == [["a"]]


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
        "import narformer_pyg.nn, narformer_pyg.nn.models, narformer_pyg.spaces\n"
        "import narformer_pyg.convert, narformer_pyg.datasets, narformer_pyg.loader\n"
        "import narformer_pyg.transforms\n"
        "assert len(narformer_pyg.datasets.NASBench201()) == 15625\n"
        "heavy = {'lightning', 'pytorch_lightning', 'matplotlib', 'narformer_pyg.training'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert run_python(script) == "[]"


def test_cells_load_no_graph_formats() -> None:
    script = (
        "import sys\n"
        "import narformer_pyg.spaces, narformer_pyg.nn, narformer_pyg.loader\n"
        "import narformer_pyg.transforms, narformer_pyg.datasets\n"
        "from narformer_pyg.convert import from_darts, to_data\n"
        "to_data('|none~0|+|none~0|none~1|+|none~0|none~1|none~2|')\n"
        "heavy = {'onnx', 'onnxruntime', 'networkx', 'scipy', 'google.protobuf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert run_python(script) == "[]"


def test_converters_are_loaded_at_first_use() -> None:
    script = (
        "import sys\n"
        "from narformer_pyg import convert\n"
        "assert 'onnx' not in sys.modules and set(convert.__all__) <= set(dir(convert))\n"
        "print(*(callable(getattr(convert, name)) for name in convert.__all__))\n"
        "print('onnx' in sys.modules, hasattr(convert, 'from_nothing'))\n"
    )
    assert set(run_python(script).splitlines()[0].split()) == {"True"}
    assert run_python(script).splitlines()[1] == "True False"


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
