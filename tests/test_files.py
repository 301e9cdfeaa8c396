"""Checkpoints and files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from nncompile.diagnostics.errors import (
    BackendError,
    CheckpointError,
    CompileError,
    FeedError,
    FileError,
    ProviderError,
)
from nncompile.ir.types import bf16, f32, i64
from nncompile.runtime import (
    Port,
    check_state,
    check_writable,
    load_state,
    save_state,
    write_atomically,
    written_together,
)

TENSORS = {
    "stem.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "step": np.array(7),
    "key": np.array([1, 2**32 - 1], np.uint32),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 3), np.int32),
}


def test_a_checkpoint_holds_names_types_shapes_and_strings(tmp_path: Path) -> None:
    path = save_state(tmp_path / "new" / "a.safetensors", TENSORS, {"model": "digits"})
    tensors, metadata = load_state(path)
    assert metadata == {"model": "digits"}
    assert tensors.keys() == TENSORS.keys()
    for name, x in TENSORS.items():
        assert tensors[name].dtype == x.dtype
        assert tensors[name].shape == x.shape
        np.testing.assert_array_equal(tensors[name], x)
    save_state(path, {"step": np.array(8)})
    assert load_state(path) == ({"step": np.array(8)}, {})


@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_a_truncated_checkpoint_is_an_error(tmp_path: Path, size: int) -> None:
    path = save_state(tmp_path / "a.safetensors", TENSORS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a complete safetensors file"):
        load_state(path)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


WRONG_HEADERS = {
    "no tensors": ([], "its header names no tensors"),
    "no position": ({"a": {"dtype": "F32", "shape": [2]}}, "'a' has no type, shape and position"),
    "a number": ({"a": 3}, "'a' has no type, shape and position"),
    "negative": ({"a": entry(shape=[-2], offsets=[8, 0])}, "'a' has no type, shape"),
    "large": ({"a": entry(shape=[2**70])}, "'a' has no type, shape"),
    "truth": ({"a": entry(shape=[True, 2])}, "'a' has no type, shape"),
    "one offset": ({"a": entry(offsets=[8])}, "'a' has no type, shape"),
    "no number": ({"a": entry(offsets=[0, 8.0])}, "'a' has no type, shape"),
    "type": ({"a": entry("F8")}, "'a' is of the element type 'F8', which is unknown"),
    "types": ({"a": entry(["F32"])}, "which is unknown"),
    "size": ({"a": entry("F64")}, "'a' needs 16 bytes, and 8 are given"),
    "a gap": ({"a": entry(offsets=[4, 12])}, "'a' begins at byte 4 of the data, not 0"),
    "one place": ({"a": entry(), "b": entry()}, "'b' begins at byte 0 of the data, not 8"),
    "too long": ({"a": entry(shape=[4], offsets=[0, 16])}, "its tensors need 16 bytes, it has 8"),
    "strings": ({"a": entry(), "__metadata__": {"x": 3}}, "its metadata are not strings"),
    "no strings": ({"a": entry(), "__metadata__": "x"}, "its metadata are not strings"),
    "control": ({"a\r": entry()}, r"the name 'a\\r' has the character '\\r'"),
    "half": ({"\ud800": entry()}, "the name '.*ud800' has the character"),
    "twice": ('{"a": 1, "a": 2}', "'a' is in its header twice"),
    "deep": ("[" * 100_000, "recursion|too deep"),
    "digits": ("9" * 10_000, "4300 digits"),
    "no text": (b"\xff\xfe", "can't decode|codec"),
}


@pytest.mark.parametrize("name", WRONG_HEADERS)
def test_a_wrong_header_is_an_error_that_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    header, message = WRONG_HEADERS[name]
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    content = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content + b"\0" * 8)
    with pytest.raises(CheckpointError, match=rf"not a complete safetensors file: .*({message})"):
        load_state(path)


def test_a_length_of_a_header_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(CheckpointError, match="its header is longer than the file"):
        load_state(path)
    os.truncate(path, 2**40)  # it takes no room
    with path.open("r+b") as file:
        file.write((2**39).to_bytes(8, "little"))
    with pytest.raises(CheckpointError, match="its header has 549,755,813,888 bytes"):
        load_state(path)


def test_equal_states_are_equal_files_that_safetensors_reads(tmp_path: Path) -> None:
    metadata = {name: name.upper() for name in "zyxwvutsrqponmlkjihgfedcba"}
    tensors = {**TENSORS, "brain": np.arange(3).astype(bf16.numpy), "ä b": np.ones((), np.float16)}
    a = save_state(tmp_path / "a.safetensors", tensors, metadata).read_bytes()
    b = save_state(tmp_path / "b.safetensors", tensors, dict(reversed(metadata.items())))
    assert a == b.read_bytes()
    with safe_open(b, "np") as file:
        own = {name: x for name, x in file.metadata().items() if name.startswith("nncompile.")}
        assert file.metadata() == metadata | own
        assert set(own) == {"nncompile.format", "nncompile.checksum"}
        assert set(file.keys()) == set(tensors)
        np.testing.assert_array_equal(file.get_tensor("turned"), TENSORS["turned"])
    read, _ = load_state(b)
    for name, x in tensors.items():
        np.testing.assert_array_equal(read[name], x)
        assert read[name].dtype == x.dtype


def test_truth_values_that_are_none_become_true(tmp_path: Path) -> None:
    path = save_state(tmp_path / "a.safetensors", {"a": np.array([True, False])})
    path.write_bytes(path.read_bytes()[:-2] + b"\x05\x00")
    assert load_state(path)[0]["a"].view(np.uint8).tolist() == [1, 0]


def test_a_foreign_or_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **TENSORS)
    with pytest.raises(CheckpointError, match=r"a\.npz is not a complete safetensors file"):
        load_state(path)
    with pytest.raises(FileError, match="no such file"):
        load_state(tmp_path / "gone.safetensors")
    with pytest.raises(FileError, match="it is a directory"):
        load_state(tmp_path)


def test_a_state_of_another_model_lists_every_name_that_differs() -> None:
    expected = {"stem.weight": f32[2, 3], "stem.bias": f32["n"], "step": i64[()]}
    check_state({**TENSORS, "stem.bias": np.zeros(5, np.float32)} | {}, _types(TENSORS) | expected)
    with pytest.raises(CheckpointError) as caught:
        check_state(
            {
                "stem.weights": np.zeros((2, 3), np.float32),
                "stem.bias": np.zeros((5, 1), np.float32),
                "step": np.array(0, np.int32),
            },
            expected,
            "a.safetensors",
        )
    text = str(caught.value)
    assert "a.safetensors does not fit this model: 1 missing, 1 unknown, 2 of another type" in text
    for part in (
        "missing  stem.weight   f32[2, 3]",
        "unknown  stem.weights  f32[2, 3]",
        "differs  stem.bias     f32[5, 1], expected f32[n]",
        "differs  step          i32[], expected i64[]",
        "'stem.weights' may be 'stem.weight' renamed",
    ):
        assert part in text


def _types(tensors: dict[str, np.ndarray]) -> dict[str, Port]:
    return {name: Port(name, x.dtype, x.shape) for name, x in tensors.items()}


def test_a_long_list_of_names_is_cut() -> None:
    expected = {f"layer{i}.weight": f32[2] for i in range(20)}
    with pytest.raises(CheckpointError, match=r"20 missing[\s\S]*and 12 more"):
        check_state({}, expected)


# Files


def test_a_file_is_written_whole_with_its_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.onnx"
    assert write_atomically(path, b"one") == path
    write_atomically(path, lambda p: p.write_bytes(b"two") and None)
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["model.onnx"]


def test_a_new_file_has_usual_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    new = write_atomically(tmp_path / "new", b"x")
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    for mode in (0o600, 0o777):
        new.chmod(mode)
        write_atomically(new, b"y")
        assert stat.S_IMODE(new.stat().st_mode) == mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = write_atomically(tmp_path / "model.onnx", b"old")

    def half(beside: Path) -> None:
        beside.write_bytes(b"ne")
        raise error("no space")

    with pytest.raises(FileError if error is OSError else error):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    (tmp_path / "b").chmod(0o600)
    with written_together(tmp_path) as directory:
        for name in ("a", "b", "c"):
            (directory / name).write_text("new")
        assert {(tmp_path / name).read_text() for name in ("a", "b")} == {"old"}
    assert {name: (tmp_path / name).read_text() for name in sorted(os.listdir(tmp_path))} == {
        "a": "new",
        "b": "new",
        "c": "new",
    }
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError, FileError])
def test_a_failure_leaves_all_files_that_belong_together(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a").write_text("old")
    raised = FileError if error is OSError else error
    with pytest.raises(raised, match="no space"), written_together(tmp_path) as directory:
        (directory / "a").write_text("new")
        raise error("no space")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_directory_in_the_place_of_one_file_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(FileError, match="b: it is a directory"),
        written_together(tmp_path) as directory,
    ):
        for name in ("a", "b"):
            (directory / name).write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_bytes(b"kept")
    for write in (
        lambda: write_atomically(blocker / "model.onnx", b"x"),
        lambda: check_writable(blocker / "runs"),
        lambda: save_state(blocker / "a.safetensors", TENSORS),
        lambda: written_together(blocker / "runs").__enter__(),
    ):
        with pytest.raises(FileError, match=r"cannot write to directory .*file"):
            write()
    assert blocker.read_bytes() == b"kept"
    with pytest.raises(FileError, match="it is a directory"):
        write_atomically(tmp_path, b"x")


def test_a_directory_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind the superuser, who may run the tests: the refusal is made here."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = write_atomically(tmp_path / "model.onnx", b"old")
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("os.mkdir", refuse)
    for write in (
        lambda: write_atomically(path, b"new"),
        lambda: check_writable(tmp_path),
        lambda: written_together(tmp_path).__enter__(),
        lambda: written_together(tmp_path / "new").__enter__(),
    ):
        with pytest.raises(FileError, match=f"directory {tmp_path}: permission denied"):
            write()
    assert path.read_bytes() == b"old"


def test_every_error_is_one_that_the_command_line_knows() -> None:
    for error in (BackendError, CheckpointError, FeedError, FileError, ProviderError):
        assert issubclass(error, CompileError)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_writing_leaves_the_mask_of_the_process(tmp_path: Path, mask: int) -> None:
    """The mask of new files is read by setting it: it must be what it was, failed or not."""

    def fails(path: Path) -> None:
        raise OSError(28, "No space left on device")

    before = os.umask(mask)
    try:
        file = write_atomically(tmp_path / "a", b"x")
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
        with pytest.raises(FileError, match="no space left"):
            write_atomically(tmp_path / "b", fails)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
