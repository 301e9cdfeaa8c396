"""Sessions, feeds and providers, on models that are made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.diagnostics.errors import (
    BackendError,
    FeedError,
    FileError,
    ModelError,
    ProviderError,
)
from nncompile.runtime import Port, Session, check_feeds
from nncompile.runtime.providers import check_started, device_of, resolve_providers
from tests.hand_made import affine, build

# Sessions


def test_a_session_takes_a_model_its_bytes_or_its_path(tmp_path: Path) -> None:
    model = affine()
    path = tmp_path / "affine.onnx"
    onnx.save(model, path)
    feeds = {"x": np.ones((2, 3), np.float32), "b": [1, 2, 3]}
    for source in (model, model.SerializeToString(), path, str(path)):
        result = Session(source, threads=1).run(feeds)
        assert list(result) == ["y", "mean"]
        np.testing.assert_array_equal(result["y"], [[3, 4, 5]] * 2)
        assert isinstance(result["mean"], np.ndarray)
        assert result["mean"].shape == ()


def test_ports_say_names_types_and_sizes() -> None:
    session = Session(affine())
    assert [str(port) for port in session.inputs] == ["x: f32[batch, 3]", "b: f32[3]"]
    assert [port.is_static for port in session.outputs] == [False, True]


def test_chosen_outputs_come_alone_and_in_order() -> None:
    session = Session(affine())
    feeds = {"x": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
    assert list(session.run(feeds, ["mean"])) == ["mean"]
    assert list(session.run(feeds, ["mean", "y"])) == ["mean", "y"]
    assert session.run(feeds, []) == {}
    with pytest.raises(FeedError, match="no output 'z'"):
        session.run(feeds, ["z"])


@pytest.mark.parametrize("content", [b"", b"print('hello')\n" * 40, b"\x00" * 100])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"model\.onnx"):
        Session(path)


def test_a_truncated_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(affine().SerializeToString()[:-40])
    with pytest.raises(BackendError, match=r"model\.onnx"):
        Session(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"gone\.onnx: no such file"):
        Session(tmp_path / "gone.onnx")
    with pytest.raises(FileError, match="it is a directory"):
        Session(tmp_path)


def test_no_threads_is_an_error() -> None:
    with pytest.raises(ModelError, match="threads must be at least 1, got 0"):
        Session(affine(), threads=0)


def test_a_failure_while_running_names_the_feeds(capfd: pytest.CaptureFixture[str]) -> None:
    gather = "test (int64[n] index) => (float[n] y) { y = Gather (table, index) }"
    model = build(gather, {"table": np.zeros(4, np.float32)})
    with pytest.raises(BackendError, match=r"idx=9[\s\S]*i64\[2\]"):
        Session(model).run({"index": np.array([0, 9])})
    assert capfd.readouterr().err == ""


# Feeds


def port(shape: tuple[int | str | None, ...], dtype: Any = np.float32, name: str = "x") -> Port:
    return Port(name, np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "no data for input 'image'"),
        ({"imgae": 0}, r"'imgae' was given: is it 'image'\?"),
        ({"image": np.zeros((2, 4), np.float32), "label": 0}, "no input 'label'"),
        ({"image": np.zeros((2, 4))}, r"wrong element type[\s\S]*f64\[2, 4\][\s\S]*astype"),
        ({"image": np.zeros(4, np.float32)}, "has rank 1, not 2"),
        ({"image": np.zeros((2, 5), np.float32)}, "has size 5 on axis 1, not 4"),
        ({"image": [[1], [2, 3]]}, "cannot be converted to an array"),
        ({"image": "digits"}, "wrong element type"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        check_feeds([port(("batch", 4), name="image")], feeds)


def test_python_numbers_take_the_declared_type_where_nothing_is_lost() -> None:
    floats, integers, truth = port((2,)), port((2,), np.int32), port((2,), np.bool_)
    assert check_feeds([floats], {"x": [1, True]})["x"].dtype == np.float32
    assert check_feeds([integers], {"x": [1, 2]})["x"].dtype == np.int32
    assert check_feeds([port((0,), np.int64)], {"x": []})["x"].dtype == np.int64
    assert check_feeds([port(())], {"x": 3})["x"].shape == ()
    for ports, data in ((integers, [1.0, 2.0]), (integers, [2**31, 0]), (truth, [0, 1])):
        with pytest.raises(FeedError, match="wrong element type"):
            check_feeds([ports], {"x": data})
    with pytest.raises(FeedError, match="wrong element type"):
        check_feeds([port(())], {"x": np.float64(3)})


def test_one_name_has_one_size() -> None:
    ports = [port(("batch", 4), name="image"), port(("batch",), np.int64, "label")]
    feeds = {"image": np.zeros((2, 4), np.float32), "label": np.zeros(3, np.int64)}
    with pytest.raises(FeedError, match=r"'label' has size 3 on axis 0.*batch[\s\S]*2 by input"):
        check_feeds(ports, feeds)


def test_arithmetic_of_names_is_solved_and_checked() -> None:
    ports = [port(("4*h", "batch")), port(("h",), name="y")]
    check_feeds(ports, {"x": np.zeros((8, 1), np.float32), "y": np.zeros(2, np.float32)})
    for rows, length in ((8, 3), (9, 2)):
        feeds = {"x": np.zeros((rows, 1), np.float32), "y": np.zeros(length, np.float32)}
        with pytest.raises(FeedError, match=r"4\*h"):
            check_feeds(ports, feeds)


def test_sizes_that_are_not_said_or_not_arithmetic_fit_anything() -> None:
    ports = [port((None, "dim.1?")), port((None, "dim.1?"), name="y")]
    x, y = np.zeros((2, 3), np.float32), np.zeros((5, 3), np.float32)
    assert set(check_feeds(ports, {"x": x, "y": y})) == {"x", "y"}
    with pytest.raises(FeedError, match="'y' has size 2"):
        check_feeds(ports, {"x": x, "y": y[:, :2]})


# Providers


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("cpuu", "unknown execution provider 'cpuu'"),
        ("rocketship", "available: "),
        ("dml", "has no provider 'dml'"),
        (["cpu", "CPUExecutionProvider"], "given twice"),
        ([], "no execution provider"),
        (7, "is not a provider"),
        ([()], "is not a provider"),
    ],
)
def test_providers_that_cannot_be_met(providers: Any, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Session(affine(), providers)


def test_providers_by_any_name_with_options() -> None:
    expected = [("CPUExecutionProvider", {"arena_extend_strategy": "1"})]
    assert resolve_providers([("CPU", {"arena_extend_strategy": 1})]) == expected
    assert resolve_providers(("cpuexecutionprovider", {"arena_extend_strategy": 1})) == expected


def test_a_provider_that_did_not_start_is_an_error() -> None:
    cuda = [("CUDAExecutionProvider", {"device_id": "2"})]
    with pytest.raises(ProviderError, match="'cuda' did not start"):
        check_started(cuda, ["CPUExecutionProvider"])
    assert device_of(cuda) == ("cuda", 2)
    assert device_of([("CPUExecutionProvider", {})]) == ("cpu", 0)


def test_levels_of_optimization() -> None:
    with pytest.raises(BackendError, match="no optimization level 'most'"):
        Session(b"", optimization="most")
