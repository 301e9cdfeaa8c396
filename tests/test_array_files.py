"""Files of arrays: what they declare is not believed, and names do not collide."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import FileError
from nncompile.runtime import read_array, read_arrays, write_arrays
from nncompile.runtime.array_files import file_names

ARRAYS = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6).reshape(2, 3).T,
    "scalar": np.array(3.0),
    "nothing": np.zeros((0, 3), np.int8),
    "text": np.array(["a", "bc"]),
    "file": np.array([True]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_read_as_numpy_reads_it(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", ARRAYS[name])
    read = read_array(tmp_path / "a.npy")
    expected = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(read, expected)
    assert (read.dtype, read.strides) == (expected.dtype, expected.strides)
    assert read.flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, None])
def test_arrays_are_read_by_name(tmp_path: Path, save: object) -> None:
    if save is None:
        write_arrays(tmp_path / "a.npz", ARRAYS)
    else:
        save(tmp_path / "a.npz", **{n: x for n, x in ARRAYS.items() if n != "file"})
    read = read_arrays(tmp_path / "a.npz")
    for name, x in read.items():
        np.testing.assert_array_equal(x, ARRAYS[name])
    assert len(read) == len(ARRAYS) - (save is not None)
    if save is None:
        with np.load(tmp_path / "a.npz") as archive:
            assert archive.files == list(ARRAYS)


def header(text: str, version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode()


def described(descr: str = "<f4", shape: str = "(1000000000000,)", order: str = "False") -> bytes:
    return header(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}}}\n")


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([os.getcwd], object), allow_pickle=True)
    return buffer.getvalue()


BROKEN = {
    "empty": (b"", "it is|EOF|expected 8 bytes"),
    "other": (b"not an array at all", "magic string"),
    "3.6 TB": (described() + b"\0" * 12, "12 bytes of data, 4,000,000,000,000 are declared"),
    "negative": (described(shape="(-1,)"), r"its shape is \(-1,\)"),
    "truth": (described(shape="(True,)"), r"its shape is \(True,\)"),
    "large": (described(shape=f"({10**30}, {10**30})"), "are declared"),
    "empty but large": (described(shape=f"(0, {10**30})"), "too big|too large|Maximum"),
    "no size": (described("<U0", "(5,)"), "its element type is <U0"),
    "unknown": (described("<q9", "(5,)"), "data type|not understood"),
    "nested": (header("(" * 9000), "its header is broken"),
    "deep": (header("-" * 9900), "its header is broken"),
    "no dict": (header("3"), "its header is broken"),
    "long": (header("-" * 60000), "its header has 60,000 bytes"),
    "calls": (header("__import__('os').getcwd()"), "its header is broken"),
    "version": (header("3", b"\7\0"), "its format is 7.0, which is unknown"),
    "cut": (described()[:40], "it is truncated"),
    "more": (described(shape="(1,)") + b"\0" * 5, "5 bytes of data, 4 are declared"),
    "objects": (pickled(), "Python objects, which may run any program"),
    "records": (
        header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}") + b"\0" * 4,
        "records",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_array_is_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FileError, match=rf"a\.npy is not a complete \.npy file.*({message})"):
        read_array(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(FileError, match=r"a\.npz is not a complete \.npz file"):
        read_arrays(tmp_path / "a.npz")


def test_a_sparse_file_of_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    content = described()
    (tmp_path / "a.npy").write_bytes(content)
    os.truncate(tmp_path / "a.npy", len(content) + 4 * 10**12)
    with pytest.raises(FileError, match="do not fit in memory: 4,000,000,000,000 bytes"):
        read_array(tmp_path / "a.npy")


def test_an_archive_that_grows_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(1100):  # what each declares is made 4 GB
            archive.writestr(f"{i}.npy", b"\0" * 77)
    content = path.read_bytes().replace((77).to_bytes(4, "little"), b"\xfe\xff\xff\xff")
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"do not fit in memory: 4,\d{3},\d{3},\d{3},\d{3} bytes"):
        read_arrays(path)


def test_a_name_that_is_twice_in_an_archive_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("a.npy", b"1")
        archive.writestr("a.npy", b"2")
    with pytest.raises(FileError, match="'a' is in it twice"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("read", [read_array, read_arrays])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "pipe", "it is a pipe"),
        (tmp_path, "it is a directory"),
        ("/dev/zero", "it is a device"),
        (tmp_path / "gone", "no such file"),
        ("nul\0", "no file has such a name"),
        (tmp_path / ("x" * 300), "file name too long"),
    ):
        with pytest.raises(FileError, match=problem):
            read(path)


def test_two_outputs_never_share_a_file(tmp_path: Path) -> None:
    names = [
        "a/b",
        "a_b",
        "A_B",
        "../../up",
        "/etc/passwd",
        ".",
        "..",
        "",
        "a\nb",
        "a\\b",
        "x" * 300,
    ]
    arrays = {name: np.array(i) for i, name in enumerate(names)}
    paths = write_arrays(tmp_path / "out", arrays)
    assert [int(np.load(p)) for p in paths] == list(range(len(names)))
    assert len({str(p).casefold() for p in paths}) == len(names)
    assert {p.parent for p in paths} == {tmp_path / "out"}
    assert os.listdir(tmp_path) == ["out"]
    (archive,) = write_arrays(tmp_path / "a.npz", arrays)
    with np.load(archive) as stored:
        assert [int(stored[name]) for name in stored.files] == list(range(len(names)))
        assert stored.files[:2] == ["a/b", "a_b"]
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            assert not name.startswith("/") and ".." not in name.split("/")


def test_names_that_can_be_kept_are_kept_whatever_comes_first() -> None:
    assert file_names(["a/b", "a_b"]) == file_names(["a_b", "a/b"])
    assert file_names(["a/b"]) == {"a/b": "a_b"}
    assert file_names(["a/b", "a_b"], allowed="/") == {"a/b": "a/b", "a_b": "a_b"}
