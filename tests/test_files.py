from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from narformer_pyg._files import Journal, atomic_write, is_inside


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


def test_journal_keeps_entries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "new" / "journal"
    with Journal(path, "search", {"seed": 1, "sizes": (1, 2)}) as journal:
        for number in range(3):
            journal.write({"number": number})
            assert len(path.read_bytes().splitlines()) == number + 2  # on the disk at once
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with Journal(path, "search", {"seed": 1, "sizes": [1, 2]}) as journal:
        assert journal.entries == [{"number": 0}, {"number": 1}]
        assert "cut off" in caplog.text
        journal.write({"number": 2})
    assert path.read_bytes() == whole
    with pytest.raises(ValueError, match=r"unfinished search .*seed: 1 then, 2 now; sizes"):
        Journal(path, "search", {"seed": 2})
    header = whole.splitlines(keepends=True)[0]
    path.write_bytes(header[:15])  # killed while the first line was written
    with Journal(path, "search", {"seed": 1, "sizes": (1, 2)}) as journal:
        assert journal.entries == []
    assert path.read_bytes() == header


@pytest.mark.parametrize(
    "content",
    [b"one line", b"a note\nand another", b"{}\n", b"\x80\x81\n", b'{"format": "other"}\n[1]\n'],
)
def test_journal_leaves_other_files_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes.txt' to be the journal of a search"):
        Journal(path, "search", {})
    assert path.read_bytes() == content


def test_journal_of_another_kind(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", "measurement", {}).close()
    with pytest.raises(ValueError, match="its first line is not a header"):
        Journal(tmp_path / "journal", "search", {})


def test_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, "search", {}):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"to be free .*another search writes to"):
            Journal(path, "search", {})
        assert path.read_bytes() == before
    Journal(path, "search", {}).close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.onnx", True), ("a/b.onnx", True), ("a/../b.onnx", True), ("..a", True),
        ("", False), ("..", False), ("../a.onnx", False), ("a/../../b.onnx", False),
        ("/etc/passwd", False), ("//etc/passwd", False), ("./../a.onnx", False),
    ],
)  # fmt: skip
def test_names_inside_a_folder(name: str, expected: bool) -> None:
    assert is_inside(name) == expected
