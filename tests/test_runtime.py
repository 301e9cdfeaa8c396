"""Sessions, the runner, checkpoints and files, on models that are made by hand."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncompile.errors import (
    BackendError,
    CheckpointError,
    CompileError,
    FeedError,
    FileError,
    ProviderError,
)
from nncompile.runtime import (
    Port,
    Session,
    StepRunner,
    check_feeds,
    check_state,
    check_writable,
    load_state,
    save_state,
    write_atomically,
)
from nncompile.runtime import session as session_module
from nncompile.runtime.providers import check_started, device_of, resolve_providers
from nncompile.types import f32, i64

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Info = tuple[str, int, list[Any]]


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[Info],
    outputs: list[Info],
    constants: dict[str, np.ndarray] | None = None,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*x) for x in inputs],
        [helper.make_tensor_value_info(*x) for x in outputs],
        [numpy_helper.from_array(x, name) for name, x in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    return model


def affine() -> onnx.ModelProto:
    """y = x·2 + b, and the mean of y."""
    return build(
        [
            helper.make_node("Mul", ["x", "two"], ["scaled"]),
            helper.make_node("Add", ["scaled", "b"], ["y"]),
            helper.make_node("ReduceMean", ["y"], ["mean"], keepdims=0),
        ],
        [("x", FLOAT, ["batch", 3]), ("b", FLOAT, [3])],
        [("y", FLOAT, ["batch", 3]), ("mean", FLOAT, [])],
        {"two": np.float32(2)},
    )


def halving_step(**changed: Any) -> onnx.ModelProto:
    """w halves (through transposes, which break when read and written in place) and step counts;
    y = x·w is a result with the batch's size, `kept` one whose size depends on the data."""
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0),
            helper.make_node("Compress", ["x", "mask"], ["kept"], axis=0),
            helper.make_node("Transpose", ["w"], ["turned"]),
            helper.make_node("Mul", ["turned", "rate"], ["halved"]),
            helper.make_node("Transpose", ["halved"], ["w.next"]),
            helper.make_node("Add", ["step", "one"], ["step.next"]),
        ],
        [
            ("x", FLOAT, ["batch", 300]),
            ("w", FLOAT, [300, 200]),
            ("step", INT64, []),
            ("rate", FLOAT, []),
            ("mask", BOOL, ["batch"]),
        ],
        [
            ("loss", FLOAT, []),
            ("w.next", FLOAT, [300, 200]),
            ("y", FLOAT, ["batch", 200]),
            ("step.next", INT64, []),
            ("kept", FLOAT, [None, 300]),
        ],
        {"one": np.array(1)},
        {"nncompile.state": json.dumps({"w": "w.next", "step": "step.next"})} | changed,
    )


@pytest.fixture
def start() -> dict[str, np.ndarray]:
    w = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    return {"w": w, "step": np.array(0), "rate": np.array(0.5, np.float32)}


def batch_of(n: int, kept: int = 1, seed: int = 1) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 300)).astype(np.float32)
    return {"x": x, "mask": np.arange(n) < kept}


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
    with pytest.raises(BackendError, match="at least one thread, got 0"):
        Session(affine(), threads=0)


def test_a_failure_while_running_names_the_feeds(capfd: pytest.CaptureFixture[str]) -> None:
    model = build(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [("index", INT64, ["n"])],
        [("y", FLOAT, ["n"])],
        {"table": np.zeros(4, np.float32)},
    )
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
        ({"imgae": 0}, r"'imgae' was given: did you mean 'image'\?"),
        ({"image": np.zeros((2, 4), np.float32), "label": 0}, "no input 'label'"),
        ({"image": np.zeros((2, 4))}, r"another element type[\s\S]*f64\[2, 4\][\s\S]*astype"),
        ({"image": np.zeros(4, np.float32)}, "has rank 1, not 2"),
        ({"image": np.zeros((2, 5), np.float32)}, "has size 5 on axis 1, not 4"),
        ({"image": [[1], [2, 3]]}, "do not make an array"),
        ({"image": "digits"}, "another element type"),
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
        with pytest.raises(FeedError, match="another element type"):
            check_feeds([ports], {"x": data})
    with pytest.raises(FeedError, match="another element type"):
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
        (["cpu", "CPUExecutionProvider"], "named twice"),
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


# The runner


def test_steps_ping_pong_between_two_sets_of_state(start: dict[str, np.ndarray]) -> None:
    before = {name: x.copy() for name, x in start.items()}
    runner = StepRunner(halving_step(), start)
    assert runner.metrics() == {}
    for i, (n, kept) in enumerate([(4, 1), (4, 3), (2, 2), (1, 0), (7, 7), (7, 6)]):
        batch = batch_of(n, kept, seed=i)
        runner.step(batch)
        metrics = runner.metrics()
        expected = batch["x"] @ (before["w"] * 0.5**i)
        assert list(metrics) == ["loss", "y", "kept"]
        np.testing.assert_allclose(metrics["y"], expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(metrics["loss"], expected.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(metrics["kept"], batch["x"][:kept])
        state = runner.state()
        np.testing.assert_array_equal(state["w"], before["w"] * np.float32(0.5 ** (i + 1)))
        assert state["step"] == i + 1
        assert state["step"].shape == metrics["loss"].shape == ()
    for name, x in before.items():
        np.testing.assert_array_equal(start[name], x)


def test_what_the_runner_gives_is_a_copy(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    runner.step(batch_of(2))
    state, metrics = runner.state(), runner.metrics()
    kept = {name: x.copy() for name, x in (state | metrics).items()}
    runner.step(batch_of(2, seed=5))
    runner.step(batch_of(2, seed=6))
    for name, x in (state | metrics).items():
        np.testing.assert_array_equal(x, kept[name])


def test_the_runner_goes_on_from_a_loaded_state(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    for seed in range(3):
        runner.step(batch_of(2, seed=seed))
    runner.load(start | {"step": np.array(10), "rate": np.array(0.25, np.float32)})
    runner.step(batch_of(2))
    assert runner.state()["step"] == 11
    runner.step(batch_of(2))
    np.testing.assert_array_equal(runner.state()["w"], start["w"] / 16)
    with pytest.raises(FeedError, match="'w' has size 2 on axis 0"):
        runner.load(start | {"w": np.zeros((2, 200), np.float32)})


def test_a_batch_may_be_lists_or_strided_arrays(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    x = batch_of(3)["x"]
    runner.step({"x": np.asfortranarray(x), "mask": [True, False, True]})
    metrics = runner.metrics()
    np.testing.assert_allclose(metrics["y"], x @ start["w"], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(metrics["kept"], x[[0, 2]])


def test_bad_batches_and_states_leave_the_state_as_it_was(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    runner.step(batch_of(2))
    before = runner.state()
    good = batch_of(2)
    for bad, message in (
        ({"x": good["x"]}, "no data for input 'mask'"),
        (good | {"y": good["x"]}, "no input 'y'"),
        (good | {"x": good["x"].astype(np.float64)}, "another element type"),
        (good | {"x": good["x"][:, 1:]}, "has size 299 on axis 1"),
        (good | {"mask": np.zeros(3, np.bool_)}, "batch"),
    ):
        with pytest.raises(FeedError, match=message):
            runner.step(bad)
    for name, x in runner.state().items():
        np.testing.assert_array_equal(x, before[name])
    runner.step(good)
    assert runner.state()["step"] == 2
    with pytest.raises(FeedError, match="no data for input 'step'"):
        StepRunner(halving_step(), {"w": start["w"], "rate": start["rate"]})
    with pytest.raises(FeedError, match="no input 'v'"):
        StepRunner(halving_step(), start | {"v": start["w"]})


def test_a_step_that_fails_leaves_the_state_as_it_was() -> None:
    model = build(
        [
            helper.make_node("Gather", ["w", "index"], ["loss"]),
            helper.make_node("Neg", ["w"], ["w.next"]),
        ],
        [("w", FLOAT, [4]), ("index", INT64, [])],
        [("w.next", FLOAT, [4]), ("loss", FLOAT, [])],
        metadata={"nncompile.state": '{"w": "w.next"}'},
    )
    runner = StepRunner(model, {"w": np.arange(4, dtype=np.float32)})
    with pytest.raises(BackendError, match=r"failed on these data: .*idx=4"):
        runner.step({"index": np.array(4)})
    np.testing.assert_array_equal(runner.state()["w"], [0, 1, 2, 3])
    runner.step({"index": np.array(3)})
    assert runner.metrics()["loss"] == 3
    np.testing.assert_array_equal(runner.state()["w"], [0, -1, -2, -3])


@pytest.mark.parametrize(
    "text", ["[1", "[]", '{"v": "w.next"}', '{"w": "v"}', '{"w": "step.next"}', '{"w": 1}']
)
def test_a_state_map_that_names_nothing_is_an_error(
    text: str, start: dict[str, np.ndarray]
) -> None:
    with pytest.raises(BackendError, match=r"nncompile\.state"):
        StepRunner(halving_step(**{"nncompile.state": text}), start)


def test_a_model_without_state_is_no_step() -> None:
    with pytest.raises(BackendError, match="is not a training step"):
        StepRunner(affine(), {})


def test_the_public_way_gives_the_same_steps(
    start: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime's private call is a short cut, and another version may not have it."""
    fast = StepRunner(halving_step(), start)

    class Public:
        """The session's public face: nothing that begins with an underscore."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.calls = inner, 0

        def run_with_iobinding(self, binding: Any) -> None:
            self.calls += 1
            self.inner.run_with_iobinding(binding)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return getattr(self.inner, name)

    made = session_module.ort.InferenceSession
    monkeypatch.setattr(
        session_module.ort, "InferenceSession", lambda *a, **k: Public(made(*a, **k))
    )
    slow = StepRunner(halving_step(), start)
    for seed in range(3):
        fast.step(batch_of(3, seed=seed))
        slow.step(batch_of(3, seed=seed))
    public: Any = slow.session.onnxruntime
    assert public.calls == 3
    for name, x in (fast.state() | fast.metrics()).items():
        np.testing.assert_array_equal(x, (slow.state() | slow.metrics())[name])


# Checkpoints

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
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a whole safetensors file"):
        load_state(path)


def test_a_foreign_or_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **TENSORS)
    with pytest.raises(CheckpointError, match=r"a\.npz is not a whole safetensors file"):
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
    assert "a.safetensors is not of this model: 1 missing, 1 unknown, 2 of another type" in text
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
    new.chmod(0o600)
    write_atomically(new, b"y")
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


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


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_bytes(b"kept")
    for write in (
        lambda: write_atomically(blocker / "model.onnx", b"x"),
        lambda: check_writable(blocker / "runs"),
        lambda: save_state(blocker / "a.safetensors", TENSORS),
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
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    for write in (lambda: write_atomically(path, b"new"), lambda: check_writable(tmp_path)):
        with pytest.raises(FileError, match=f"directory {tmp_path}: permission denied"):
            write()
    assert path.read_bytes() == b"old"


def test_every_error_is_one_that_the_command_line_knows() -> None:
    for error in (BackendError, CheckpointError, FeedError, FileError, ProviderError):
        assert issubclass(error, CompileError)
