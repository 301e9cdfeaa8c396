"""Native kernels: a call in a file computes what its function says, with the library or without it.
What needs the library is skipped where it is not installed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from dsl import Dense, Value, adam, adamw, cross_entropy, f32, i64, lion, model, relu, sgd, training
from dsl import sum as total
from nncompile import Trainer, export
from nncompile.backends.onnx import check, to_model
from nncompile.backends.onnx.native.functions import MOST
from nncompile.compiler.compile import compile_step
from nncompile.elementwise import exp
from nncompile.ir.graph import Graph, Input
from nncompile.ir.native import DOMAIN, FUNCTIONS_KEY
from nncompile.ir.op import apply
from nncompile.program.recipe import Recipe
from nncompile.runtime import Session, StepRunner
from nncompile.runtime.native import (
    INTERFACE,
    SWITCH,
    Library,
    NativeWarning,
    examined,
    names_of,
    native_library,
    register,
)
from nncompile.verify.doctor import examine
from tests.native_checks import library_path, needs_library, run

OPTIMIZERS = {
    "sgd": sgd(0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": adam(1e-2),
    "adamw": adamw(1e-2),
    "lion": lion(1e-3),
}


def recipe(optimizer: Any) -> Recipe:
    @model
    def net(x: Value = f32["batch", 12], label: Value = i64["batch"]) -> dict[str, Value]:
        logits = x >> Dense(16, relu) >> Dense(8, relu) >> Dense(4)
        return {"loss": cross_entropy(logits, label)}

    return training(net, minimize="loss", optimizer=optimizer, batch_size=8)


def models(optimizer: Any) -> tuple[Any, onnx.ModelProto, onnx.ModelProto]:
    """A compiled step, its file without kernels and that with them."""
    compiled = compile_step(recipe(optimizer))
    plain, native = (to_model(compiled.step, kernels=kernels) for kernels in (False, True))
    return compiled, plain, native


def feeds_of(compiled: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 12)).astype(np.float32), "label": rng.integers(0, 4, 8)}
    return {**compiled.source.initial(), **batch}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_calls_is_the_same_step(name: str) -> None:
    compiled, plain, native = models(OPTIMIZERS[name])
    check(native)
    assert {f.name.partition("_")[0] for f in native.functions} == {"CrossEntropy", "Elementwise"}
    feeds = feeds_of(compiled)
    expected, inlined = run(plain, feeds), run(native, feeds)
    for output, x in expected.items():
        np.testing.assert_array_equal(inlined[output], x, err_msg=output)


@needs_library
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_library_computes_what_the_functions_say(name: str) -> None:
    compiled, _, native = models(OPTIMIZERS[name])
    feeds = feeds_of(compiled)
    expected, found = run(native, feeds), run(native, feeds, with_library=True, names="")
    for output, x in expected.items():
        np.testing.assert_allclose(found[output], x, rtol=3e-6, atol=1e-7, err_msg=output)


def examples() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(64, 12)).astype(np.float32),
        "label": rng.integers(0, 4, 64),
    }


@needs_library
def test_one_exported_step_with_the_library_and_without(tmp_path: Any) -> None:
    file = tmp_path / "step.onnx"
    export(recipe(adamw(1e-2)), file, to="step", seed=0)
    data = examples()
    losses = []
    for native in (True, False):
        runner = StepRunner(file, native=native)
        assert (runner.session.library is not None) == native
        losses.append([])
        for i in range(8):
            runner.step({name: x[8 * i : 8 * i + 8] for name, x in data.items()})
            losses[-1].append(float(runner.metrics()["loss"]))
    np.testing.assert_allclose(*losses, rtol=1e-5)


@needs_library
def test_a_trainer_says_that_it_uses_them(capsys: Any, monkeypatch: Any) -> None:
    trainer = Trainer(recipe(adam(1e-2)), seed=0)
    trainer.fit(examples(), epochs=1)
    trainer.fit(examples(), epochs=1)
    assert capsys.readouterr().err.count("native kernels: nncompile-kernels ") == 1
    without = Trainer(recipe(adam(1e-2)), seed=0, native=False)
    without.fit(examples(), epochs=2)
    assert "native kernels" not in capsys.readouterr().err
    for path, x in without.params.items():
        np.testing.assert_allclose(trainer.params[path], x, rtol=1e-4, atol=1e-6)
    monkeypatch.setenv(SWITCH, "0")
    assert Trainer(recipe(adam(1e-2))).library is None
    for off in ("0", "no", "OFF", "False"):
        monkeypatch.setenv(SWITCH, off)
        assert native_library() is None


@needs_library
def test_threads_do_not_change_results() -> None:
    trainers = [Trainer(recipe(adamw(1e-2)), seed=0, threads=n) for n in (1, 2)]
    for trainer in trainers:
        trainer.fit(examples(), epochs=2, verbose=0)
    for path, x in trainers[0].params.items():
        np.testing.assert_array_equal(trainers[1].params[path], x)


def test_a_file_without_calls() -> None:
    plain = compile_step(recipe(adam(1e-2)), kernels=False).step_model
    assert not plain.functions
    assert {node.domain for node in plain.graph.node} == {""}


def test_a_kernel_has_so_many_functions_and_no_more() -> None:
    x = apply(Input("x", f32["n"]))
    outputs = {f"y{i}": total(exp(x * i) + i) for i in range(1, MOST + 4)}
    graph = Graph("many", outputs, (x,))
    proto = to_model(graph, kernels=True)
    check(proto)
    assert len(proto.functions) == MOST
    assert [f.name for f in proto.functions][:2] == ["Elementwise", "Elementwise_2"]
    feeds = {"x": np.linspace(0, 1, 5, dtype=np.float32)}
    expected = run(to_model(graph), feeds)
    for name, y in run(proto, feeds).items():
        np.testing.assert_array_equal(y, expected[name])


@pytest.fixture
def package(monkeypatch: Any, tmp_path: Any) -> Iterator[SimpleNamespace]:
    """An installed package of kernels, whose library is no library."""
    broken = tmp_path / "libnncompile_kernels.so"
    broken.write_bytes(b"no library")
    made = SimpleNamespace(
        library=lambda: str(broken),
        instruction_set=lambda: "avx512",
        __version__="0",
        INTERFACE=INTERFACE,
    )
    monkeypatch.setitem(sys.modules, "nncompile_kernels", made)
    examined.cache_clear()
    yield made
    examined.cache_clear()


def test_a_library_that_does_not_load_is_told_of_and_left_out(package: Any) -> None:
    with pytest.warns(NativeWarning, match="native kernels are not used: ") as told:
        trainer = Trainer(recipe(adam(1e-2)), seed=0)
    assert all("\n" not in str(warning.message) for warning in told)
    trainer.fit(examples(), epochs=1, verbose=0)
    assert trainer.library is None
    finding = next(f for f in examine() if f.what == "native kernels")
    assert finding.holds is False


def test_a_package_that_fails_is_told_of(package: Any) -> None:
    def failing() -> str:
        raise FileNotFoundError("holds no library")

    package.library = failing
    with pytest.warns(NativeWarning, match="holds no library"):
        assert native_library() is None


@pytest.mark.parametrize("interface", [None, INTERFACE + 1])
def test_kernels_of_another_interface_are_left_out(package: Any, interface: int | None) -> None:
    package.INTERFACE = interface
    with pytest.warns(NativeWarning, match=rf"has interface {interface}, not {INTERFACE}: pip"):
        assert native_library() is None


@needs_library
def test_instructions_that_there_are_not_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNCOMPILE_KERNELS_ISA", "avx9")
    with pytest.warns(NativeWarning, match=r"ISA is 'avx9': this processor has"):
        assert native_library() is not None


@needs_library
def test_a_library_that_is_cut_short_is_not_loaded(tmp_path: Path) -> None:
    """To load it would end the process."""
    import nncompile_kernels

    short = tmp_path / Path(nncompile_kernels.library()).name
    short.write_bytes(Path(nncompile_kernels.library()).read_bytes()[:5000])
    with pytest.raises(OSError, match=r"has 5,000 bytes of .* install nncompile-kernels again"):
        nncompile_kernels._check_size(short)


def test_a_library_that_is_replaced_meanwhile_is_told_of(package: Any, tmp_path: Any) -> None:
    _, _, native = models(adam(1e-2))
    library = Library(package.library(), "0", "avx512")
    with pytest.warns(NativeWarning, match="native kernels are not used: "):
        assert register(library, ort.SessionOptions(), names_of(native), 1) is None


class Base(ctypes.Structure):
    """What onnxruntime hands to a library: what gives tables, and what gives its version."""

    _fields_ = (
        ("get", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
        ("version", ctypes.CFUNCTYPE(ctypes.c_void_p)),
    )


def registered(functions: int, newest: int) -> str:
    """The message that the library gives a runtime whose table has the first so many functions,
    and whose newest table is of that version."""
    messages: list[str] = []
    text = ctypes.create_string_buffer(b"1.0")

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(code: int, message: bytes) -> int:
        messages.append(message.decode())
        return 1

    table = (ctypes.c_void_p * 512)()
    for place in range(functions):
        table[place] = ctypes.cast(create_status, ctypes.c_void_p)
    base = Base(
        Base._fields_[0][1](lambda version: ctypes.addressof(table) if version <= newest else None),
        Base._fields_[1][1](lambda: ctypes.addressof(text)),
    )
    library = ctypes.CDLL(library_path())
    library.RegisterCustomOps.restype = ctypes.c_void_p
    assert library.RegisterCustomOps(None, ctypes.byref(base)) == 1
    (message,) = messages
    return message


@needs_library
def test_a_runtime_that_is_too_old_gets_a_message() -> None:
    assert registered(300, newest=17) == (
        "nncompile-kernels needs onnxruntime 1.18 or later, this is 1.0"
    )


@needs_library
def test_a_runtime_that_lacks_a_function_gets_a_message() -> None:
    expected = "onnxruntime 1.0 lacks function 274, which nncompile-kernels needs"
    assert registered(270, newest=18) == expected


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 129, 600])
def test_names_of_any_length_are_read(length: int, tmp_path: Path) -> None:
    text = "Elementwise:3 " * 50
    graph = helper.make_graph([], "empty", [], [])
    proto = helper.make_model(graph)
    helper.set_model_props(proto, {"a": "b", FUNCTIONS_KEY: text[:length], "c": "d"})
    content = proto.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    for form in (proto, content, tmp_path / "model.onnx"):
        assert names_of(form) == text[:length]


@needs_library
def test_a_model_in_any_form_calls_the_kernels(tmp_path: Any) -> None:
    _, _, native = models(adam(1e-2))
    file = tmp_path / "step.onnx"
    file.write_bytes(native.SerializeToString())
    for form in (native, native.SerializeToString(), file):
        assert Session(form, threads=1).library is not None
        assert Session(form, threads=1, native=False).library is None
    _, plain, _ = models(adam(1e-2))
    assert Session(plain).library is None
    assert DOMAIN not in {o.domain for o in plain.opset_import}
