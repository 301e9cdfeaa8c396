"""Weights of ONNX models in other files: only those in the directory of the model are read."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nncompile.diagnostics.errors import BackendError, FileError
from nncompile.runtime import Session
from nncompile.runtime.external_data import check_external_data

WEIGHT = np.arange(4, dtype=np.float32)


def tensor(location: str, offset: object = 0, length: object = 16) -> TensorProto:
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    fields = {"location": location, "offset": str(offset), "length": str(length)}
    for key, value in fields.items():
        weight.external_data.add(key=key, value=value)
    return weight


def model(weight: TensorProto, inside: bool = False) -> onnx.ModelProto:
    """The weight as the output; `inside` a branch of an `If`, as an attribute there."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    if inside:
        node = helper.make_node("Constant", [], ["y"], value=weight)
        branch = helper.make_graph([node], "branch", [], [y])
        true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        node = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([node], "g", [], [y], [true])
    else:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [weight]
        )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with weights, links and pipes, below one with another file."""
    WEIGHT.tofile(tmp_path / "secret.bin")
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    WEIGHT.tofile(inner / "sub" / "w.bin")
    (inner / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inner / "near.bin").symlink_to(inner / "sub" / "w.bin")
    (inner / "up").symlink_to(tmp_path)
    (inner / "itself").symlink_to(inner / "itself")
    os.mkfifo(inner / "pipe")
    return inner


@pytest.mark.parametrize("location", ["sub/w.bin", "near.bin", "./sub/w.bin"])
def test_weights_in_the_directory_are_read(directory: Path, location: str) -> None:
    onnx.save(model(tensor(location)), directory / "m.onnx")
    np.testing.assert_array_equal(Session(directory / "m.onnx").run({})["y"], WEIGHT)


WRONG = {
    "../secret.bin": "not a path within",
    "sub/../../secret.bin": "not a path within",
    "..\\secret.bin": "not a path within",
    "/etc/passwd": "not a path within",
    "\\\\host\\share": "not a path within",
    "C:w.bin": "not a path within",
    "link.bin": "a link to a file that is not in",
    "up/secret.bin": "a link to a file that is not in",
    "itself": "it cannot be read",
    "pipe": "it is a pipe",
    "sub": "it is a directory",
    "gone.bin": "there is no such file",
    "*/_ORT_MEM_ADDR_/*": "there is no such file",
    "": "no file has such a name",
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("location", WRONG)
def test_weights_elsewhere_are_refused(directory: Path, location: str, inside: bool) -> None:
    onnx.save(model(tensor(location), inside), directory / "m.onnx")
    with pytest.raises(BackendError, match=f"has the weight 'w' in .*: .*{WRONG[location]}"):
        Session(directory / "m.onnx")


def test_those_of_bytes_are_in_the_current_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    with pytest.raises(BackendError, match="not a path within"):
        Session(model(tensor("../secret.bin")).SerializeToString())


@pytest.mark.parametrize(
    ("offset", "length", "message"),
    [
        (4, 16, "20 bytes are needed, and it has 16"),
        (-8, 16, "8 bytes are needed"),
        (2**70, 16, "are needed, and it has 16"),
        ("x", 16, "its position is not a number"),
    ],
)
def test_weights_beyond_their_file_are_refused(
    directory: Path, offset: object, length: object, message: str
) -> None:
    onnx.save(model(tensor("sub/w.bin", offset, length)), directory / "m.onnx")
    with pytest.raises(BackendError, match=message):
        Session(directory / "m.onnx")


def test_what_is_no_file_is_not_waited_for(directory: Path) -> None:
    for name, problem in (("pipe", "a pipe"), ("sub", "a directory"), ("gone", "no such file")):
        with pytest.raises(FileError, match=problem):
            Session(directory / name)
    (directory / "empty.onnx").touch()
    with pytest.raises(BackendError, match=r"empty\.onnx"):
        Session(directory / "empty.onnx")


def test_a_path_is_found_wherever_it_stands_in_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on the border of two of the parts that a file is looked through in."""
    monkeypatch.setattr("nncompile.runtime.external_data._WINDOW", mmap.PAGESIZE)
    made = model(tensor("../secret.bin"))
    place = made.SerializeToString().index(b"location")
    for before in (2, 6, 100):  # bytes of the key that are left of the border, if any
        made.doc_string = ""
        made.producer_name = "x" * (mmap.PAGESIZE - place - before - 3)
        path = directory / "net.onnx"
        path.write_bytes(made.SerializeToString())
        with pytest.raises(BackendError, match="not a path within the directory"):
            check_external_data(path)
