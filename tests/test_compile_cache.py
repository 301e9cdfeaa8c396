"""The compile cache: what is compiled once is not compiled again, and what differs is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import sympy

from dsl import Dense, adam, f32, mean, model, relu, sgd, training
from nncompile import ops
from nncompile.compiler import cache_keys
from nncompile.compiler.cache_place import VARIABLE, active_cache, cache_directory, without_cache
from nncompile.compiler.compile import Report, compile_model
from nncompile.compiler.stored_sizes import as_json, from_json
from nncompile.diagnostics.version import VERSION
from nncompile.ir.dims import dim
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.op import Op, Value
from nncompile.ir.types import Type
from nncompile.program.recipe import Recipe
from nncompile.train import Trainer
from nncompile.verify import doctor
from tests.cache_checks import files, fresh, is_hit, recipe
from tests.command_line import GOOD, run, succeeds, written


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    yield tmp_path / "cache"


def test_what_is_compiled_again_is_the_same(cache: Path) -> None:
    cold, warm = fresh(recipe()), fresh(recipe())
    names = ("step", "gradient", "update", "evaluate")
    assert [cold.content(n) for n in names] == [warm.content(n) for n in names]
    for how in ((False, 0), (True, 0)):
        there, here = cold.files("step", *how), warm.files("step", *how)
        assert there.files == here.files
        assert there.general == here.general
    assert warm.report.is_cached and not cold.report.is_cached
    assert warm.report.nodes == cold.report.nodes
    with without_cache():
        other = fresh(recipe())
        assert [other.content(n) for n in names] == [cold.content(n) for n in names]
        assert not other.report.is_cached
    net = recipe().model
    assert compile_model(net).content == compile_model(recipe().model).content
    assert len(files(cache)) == 9


def test_the_line_on_which_it_is_compiled_is_in_no_file() -> None:
    @model
    def net(x: Value = f32["batch", 3]) -> dict[str, Value]:
        for i in range(5):  # whose small vectors are updated together
            x = x >> Dense(3, relu, name=f"layer{i}")
        return {"loss": mean(x * x)}

    with without_cache():
        one, other = (fresh(training(net, optimizer=adam(1e-3))) for _ in range(2))
        content = one.content("step")
        assert other.content("step") == content


def test_training_from_the_cache_gives_the_same_bits() -> None:
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    states, metrics = [], []
    for _ in range(2):
        active = active_cache()
        assert active is not None
        active._memory.clear()
        trainer = Trainer(recipe(), threads=1)
        trainer.fit({"x": x}, epochs=2, verbose=0)
        states.append(trainer.state)
        metrics.append(trainer.evaluate({"x": x}))
    assert trainer.compiled.report.is_cached
    assert metrics[0] == metrics[1]
    for path, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][path])


@pytest.mark.parametrize(
    "other",
    [
        {"width": 5},
        {"activation": relu},
        {"optimizer": adam(2e-3)},
        {"optimizer": sgd(1e-3)},
        {"batch_size": 4000},
        {"accumulate": 2},
        {"freeze": "first.*"},
    ],
    ids=str,
)
def test_another_recipe_is_another_entry(other: dict[str, Any]) -> None:
    assert not is_hit(recipe())
    assert is_hit(recipe())
    assert not is_hit(recipe(**other))
    assert is_hit(recipe(**other))


def test_what_else_a_file_depends_on_is_in_its_key() -> None:
    assert not is_hit(recipe())
    assert not is_hit(recipe(), without=["gemm"])
    assert not is_hit(recipe(), opset=18)
    assert not is_hit(recipe(), kernels=False)
    assert is_hit(recipe(), without=["gemm"])
    assert is_hit(recipe(), report=Report())
    assert not is_hit(recipe(), observe=lambda *_: None)  # who observes passes sees them


def test_which_arguments_a_node_has() -> None:
    def difference(exchanged: bool) -> bytes:
        @model
        def net(x: Value = f32["n", 3], y: Value = f32["n", 3]) -> dict[str, Value]:
            a, b = ops.sort(x, -1), ops.sort(y, -1)
            first, second = (b, a) if exchanged else (a, b)
            return {"a": a, "b": b, "z": ops.matmul(first, ops.swapaxes(second, -1, -2))}

        return compile_model(net).content

    assert difference(False) != difference(True)


def test_the_same_network_on_another_line_is_another_file() -> None:
    """Nodes say which line they are of."""

    def line(first: int) -> Recipe:
        lines = ["def net(x=f32['batch', 3]):", "    return {'loss': mean(x >> Dense(4))}"]
        scope: dict[str, Any] = {"f32": f32, "mean": mean, "Dense": Dense}
        exec(compile("\n" * first + "\n".join(lines), "net.py", "exec"), scope)
        return training(model(scope["net"]), optimizer=sgd(0.1))

    assert not is_hit(line(0))
    assert is_hit(line(0))
    assert not is_hit(line(1))


def test_another_version_compiles_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_hit(recipe())
    known = cache_keys._surroundings()
    for package in (np, onnx, onnxruntime, sympy):
        assert f"{package.__name__} {package.__version__}" in known
    assert {VERSION, platform.python_version(), platform.machine()} <= set(known)
    for i in range(len(known)):
        changed = [*known[:i], "another", *known[i + 1 :]]
        monkeypatch.setattr(cache_keys, "_surroundings", lambda changed=changed: changed)
        assert not is_hit(recipe())
    monkeypatch.undo()


def test_the_fingerprint_is_of_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in cache_keys._ROOMS:
        assert (cache_keys._PACKAGE / room).is_dir()
        (tmp_path / "tree" / room).mkdir(parents=True)
    monkeypatch.setattr(cache_keys, "_PACKAGE", tmp_path / "tree")
    found = {cache_keys._fingerprint()}
    for room in cache_keys._ROOMS:
        (tmp_path / "tree" / room / "a.py").write_text("x = 1\n")
        found.add(cache_keys._fingerprint())
        (tmp_path / "tree" / room / "a.py").write_text("x = 2\n")
        found.add(cache_keys._fingerprint())
    assert len(found) == 1 + 2 * len(cache_keys._ROOMS)


class Twice(Op):
    """An op of a user's own: what it becomes is in no key."""

    mixes = True

    def infer(self, x: Type) -> Type:
        return x

    def pullback(self, g: Value, y: Value, x: Value) -> list[Value | None]:
        return [2 * g]

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return str(o.Add(x, x))


def test_ops_of_a_user_are_compiled_anew(cache: Path) -> None:
    @model
    def net(x: Value = f32["batch", 3]) -> dict[str, Value]:
        return {"loss": mean(Twice()(x >> Dense(2)))}

    assert not is_hit(training(net, optimizer=sgd(0.1)))
    assert not is_hit(training(net, optimizer=sgd(0.1)))
    assert not files(cache)


def test_an_op_in_a_loop_of_a_users_own(cache: Path) -> None:
    @model
    def net(x: Value = f32["time", 3]) -> dict[str, Value]:
        _, rows = ops.scan(lambda c, r: (c + r, Twice()(c)), x[0], x)
        return {"loss": mean(rows)}

    assert compile_model(net).content
    assert not files(cache)


def test_a_lowering_that_was_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_hit(recipe())
    op = next(op for op in Op.registry.values() if op.__name__ == "Gemm")
    lowering = op.onnx
    monkeypatch.setattr(op, "onnx", lambda self, o, *args: lowering(self, o, *args))
    assert not is_hit(recipe())


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "mine"
    for off in ("OFF", "off", "0", "no", "False"):  # and no directory of that name
        monkeypatch.setenv(VARIABLE, off)
        assert cache_directory() is None
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "nncompile"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == tmp_path / ".cache" / "nncompile"
    with without_cache():
        assert cache_directory() is None
    assert VARIABLE not in os.environ


def test_no_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert not is_hit(recipe())
    assert not is_hit(recipe())
    assert not files(cache)


def test_sizes_as_json() -> None:
    n, m = dim("n"), dim("m")
    for size in (3, n, 2 * n + 1, n * m, n**3, dim("(n + 1)//2"), n % 4, dim("Max(n, 2*m)")):
        assert from_json(as_json(size)) == size


def test_commands(tmp_path: Path, cache: Path) -> None:
    file = written(tmp_path, GOOD)
    target = tmp_path / "step.onnx"
    first = succeeds("compile", file, "--to", "step", "-o", target)
    content = target.read_bytes()
    count = len(files(cache))
    assert count
    started = time.time()
    os.utime(files(cache)[0], (0, 0))
    again = succeeds("compile", file, "--to", "step", "-o", target, "--verbose")
    assert "passes" in again  # who asks what they did sees them run
    succeeds("compile", file, "--to", "step", "-o", target)
    assert target.read_bytes() == content
    assert len(files(cache)) == count
    os.utime(files(cache)[0], (0, 0))
    succeeds("compile", file, "--to", "step", "-o", target, "--no-cache")
    assert target.read_bytes() == content
    assert files(cache)[0].stat().st_mtime < started
    assert "wrote" in first
    file.write_text(file.read_text().replace("tanh", "relu"))
    edited = run("compile", file, "--to", "step", "-o", target)
    assert edited.exit_code == 0


def test_a_file_for_inference(tmp_path: Path, cache: Path) -> None:
    """Its nodes come from the cache, and its weights from whoever exports it."""
    file = written(tmp_path, GOOD)
    contents = []
    for options in ((), (), ("--no-cache",)):
        succeeds("compile", file, "--initial", "-o", tmp_path / "net.onnx", *options)
        contents.append((tmp_path / "net.onnx").read_bytes())
    assert contents[1:] == contents[:-1]
    assert len(files(cache)) == 1
    file.write_text(file.read_text().replace("epochs=8", "epochs=8, seed=1"))
    succeeds("compile", file, "--initial", "-o", tmp_path / "net.onnx")
    assert len(files(cache)) == 1
    assert (tmp_path / "net.onnx").read_bytes() != contents[0]


def test_the_doctor_says_where_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_hit(recipe())
    found = doctor._compile_cache()
    assert found.holds
    assert f"{cache}, 1 entries" in found.figures
    monkeypatch.setenv(VARIABLE, "off")
    assert doctor._compile_cache().holds is None
