from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from narformer_pyg._files import atomic_write


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_half(path: Path, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half", "utf-8")
        raise error


def test_content_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old", "utf-8")
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_text("new", "utf-8")
        assert path.read_text("utf-8") == "old"
    assert path.read_text("utf-8") == "new"
    assert names(tmp_path) == {"result.json"}


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_error_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old", "utf-8")
    with pytest.raises(error):
        write_half(path, error())
    assert path.read_text("utf-8") == "old"
    assert names(tmp_path) == {"result.json"}


def test_error_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        write_half(tmp_path / "new.csv", OSError("full"))
    assert names(tmp_path) == set()


def test_killed_process_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old", "utf-8")
    script = (
        "import os, signal, sys\n"
        "from narformer_pyg._files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half', 'utf-8')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text("utf-8") == "old"


def test_creates_missing_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.json"
    with atomic_write(str(path)) as temporary:
        temporary.write_text("new", "utf-8")
    assert path.read_text("utf-8") == "new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_keeps_the_permissions_of_the_old_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "result.json"
    path.write_text("old", "utf-8")
    path.chmod(mode)
    with atomic_write(path) as temporary:
        temporary.write_text("new", "utf-8")
    assert path.stat().st_mode & 0o777 == mode


def test_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new.txt"):
            pass
        assert os.umask(0o027) == 0o027  # the umask is as it was
    finally:
        os.umask(before)
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o640


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content", "utf-8")
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "new.txt"):
        pass
    assert (tmp_path / "file").read_text("utf-8") == "content"
