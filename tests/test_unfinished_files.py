"""What killed processes leave behind, and that nothing else is taken for it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nncompile.diagnostics import files
from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.files import sweep, write_atomically, written_together

pytestmark = pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """A directory where a process was killed while it wrote a file and two together."""
    program = f"""
import os, signal
from nncompile.diagnostics.files import write_atomically, written_together
def stop(path):
    path.write_bytes(b"half")
    with written_together({str(tmp_path)!r}) as directory:
        (directory / "a").write_text("new")
        os.kill(os.getpid(), signal.SIGKILL)
write_atomically({str(tmp_path / "model.onnx")!r}, b"old")
write_atomically({str(tmp_path / "model.onnx")!r}, stop)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3
    yield tmp_path


def test_the_next_that_writes_removes_what_a_killed_process_left(killed: Path) -> None:
    write_atomically(killed / "other", b"x")
    assert sorted(os.listdir(killed)) == ["model.onnx", "other"]
    assert (killed / "model.onnx").read_bytes() == b"old"


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    def content(path: Path) -> None:
        path.write_bytes(b"new")
        assert sweep(tmp_path) == []

    write_atomically(tmp_path / "a", content)
    with written_together(tmp_path) as directory:
        (directory / "b").write_text("new")
        assert sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_only_names_of_ours_are_swept(tmp_path: Path) -> None:
    names = [
        ".model.onnx.0123456789abcdef",
        "0123456789abcdef.nncompile-writing",
        ".a.0123.nncompile-writing",
        ".writing-abc",
        ".0123456789abcdef.nncompile-writing.bak",
    ]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".a\n.0123456789abcdef.nncompile-writing").touch()
    assert len(sweep(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert sweep(tmp_path / "gone") == []


def test_files_that_were_being_moved_are_moved_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between the first file and the second."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("old")

    class Killed(BaseException):
        pass

    replace = os.replace

    def once(source: Path, target: Path) -> None:
        if (tmp_path / "a").read_text() == "new":
            raise Killed
        replace(source, target)

    def interrupted() -> None:
        with written_together(tmp_path) as directory:
            for name in ("a", "b", "c"):
                (directory / name).write_text("new")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", once)
        patched.setattr(files, "_remove", lambda path: None)
        with pytest.raises(Killed):
            interrupted()
    assert [(tmp_path / name).read_text() for name in "abc"] == ["new", "old", "old"]
    write_atomically(tmp_path / "b", b"newest")
    assert [(tmp_path / name).read_text() for name in "abc"] == ["new", "newest", "new"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_an_interrupt_while_files_are_moved_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, times = os.replace, iter([KeyboardInterrupt])

    def first(source: Path, target: Path) -> None:
        for error in times:
            raise error
        replace(source, target)

    monkeypatch.setattr("os.replace", first)
    with pytest.raises(KeyboardInterrupt), written_together(tmp_path) as directory:
        for name in ("a", "b"):
            (directory / name).write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_new_directory_appears_by_one_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "runs" / "first"
    monkeypatch.setattr("os.replace", lambda *_: pytest.fail("a file was moved by itself"))
    with written_together(target) as directory:
        (directory / "a").write_text("new")
        (directory / "within").mkdir()
        (directory / "within" / "b").write_text("new")
        assert not target.exists()
    assert (target / "within" / "b").read_text() == "new"
    assert os.listdir(target.parent) == ["first"]
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_another_that_makes_the_directory_meanwhile_keeps_its_files(tmp_path: Path) -> None:
    with written_together(tmp_path / "run") as directory:
        (directory / "a").write_text("new")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "kept").touch()
    assert sorted(os.listdir(tmp_path / "run")) == ["a", "kept"]
    assert os.listdir(tmp_path) == ["run"]


def test_files_and_directories_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(files, "sync", lambda path: synced.append(Path(path)))
    write_atomically(tmp_path / "new" / "a", b"x")
    assert [p.name.rpartition(".")[2] for p in synced] == [
        tmp_path.name,
        "nncompile-writing",
        "new",
    ]
    synced.clear()
    with written_together(tmp_path) as directory:
        (directory / "b").touch()
        (directory / "within").mkdir()
        (directory / "within" / "c").touch()
    assert {p.name for p in synced} >= {"b", "c", "within", directory.name, tmp_path.name}


@pytest.mark.parametrize("name", ["file", "directory"])
def test_to_sync_is_to_wait_for_the_disk(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    awaited: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda x: awaited.append(os.fstat(x).st_ino))
    files.sync(tmp_path / name)
    assert awaited == [(tmp_path / name).stat().st_ino]


@pytest.mark.parametrize("name", ["pipe", "device", "nul\0"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    with pytest.raises(FileError, match=r"it is a pipe|it is a device|no file has such a name"):
        write_atomically(tmp_path / name, b"x")
    assert sorted(os.listdir(tmp_path)) == ["device", "pipe"]


def test_a_name_of_any_length_that_the_system_takes_is_written(tmp_path: Path) -> None:
    name = "ä" * 127
    assert write_atomically(tmp_path / name, b"x").read_bytes() == b"x"
    with pytest.raises(FileError, match="name too long"):
        write_atomically(tmp_path / ("x" * 256), b"x")
