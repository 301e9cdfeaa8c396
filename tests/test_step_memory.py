"""What steps take of memory, and how batches get into them."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, adam, cross_entropy, f32, i64, model, training
from nncompile import StepRunner, Trainer
from nncompile.runtime import batch_inputs, load_state
from nncompile.train import RunDirectory
from nncompile.train.sources.whole import WholeData
from tests.hand_made import halving_step

WIDTH = 300
START = {"w": np.ones((WIDTH, 200), np.float32), "step": np.array(0), "rate": np.float32(0.5)}


def _turned(x: Any) -> Any:
    return np.asfortranarray(x)


def _read_only(x: Any) -> Any:
    return np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)


def _unaligned(x: Any) -> Any:
    memory = np.empty(x.nbytes + 1, np.uint8)
    result = memory[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    assert not result.flags.aligned
    return result


def _every_second(x: Any) -> Any:
    return np.repeat(x, 2, axis=0)[::2]


@pytest.mark.parametrize("lie", [_turned, _read_only, _unaligned, _every_second, np.array])
def test_large_arrays_are_read_wherever_they_lie(lie: Callable[[Any], Any]) -> None:
    """Of batches that differ, on both of the sets of states, and between small ones."""
    draw = np.random.default_rng(0)
    rows = batch_inputs.BOUND // (4 * WIDTH) + 1
    runner = StepRunner(halving_step(), START)
    for number, count in enumerate([rows, rows, rows + 1, 3, rows, rows, rows]):
        x = draw.standard_normal((count, WIDTH), np.float32)
        runner.step({"x": lie(x), "mask": np.arange(count) < 2})
        expected = x @ (START["w"] * 0.5**number)
        np.testing.assert_allclose(runner.metrics()["y"], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(runner.metrics()["kept"], x[:2])


def test_large_arrays_are_not_copied() -> None:
    """The step reads them itself: what numpy allocates is far less than one of them."""
    rows = 4096
    batches = [{"x": np.full((rows, WIDTH), i, np.float32), "mask": np.arange(rows) < 1}
               for i in range(3)]  # fmt: skip
    runner = StepRunner(halving_step(), START)
    copies: list[int] = []
    made = batch_inputs.filler

    def counting(buffer: Any) -> Callable[[Any], None]:
        fill = made(buffer)

        def counted(array: Any) -> None:
            copies.append(array.nbytes)
            fill(array)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_inputs, "filler", counting)
        runner.step(batches[0])
    tracemalloc.start()
    try:
        for batch in batches:
            runner.step(batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < batches[0]["x"].nbytes / 10
    assert copies == [rows] * 4  # the mask alone


@pytest.mark.parametrize("order", [None, (0, 1)])
def test_large_batches_are_cut_one_at_a_time(order: Any) -> None:
    """In the order of the data without a copy; shuffled, beside the batch before."""
    x = np.random.default_rng(0).standard_normal((4096, 64), np.float32)
    size = 512
    whole = WholeData({"x": x}, {"x"}, {"x": None}, size)
    chosen = np.arange(4096) if order is None else np.random.default_rng(order).permutation(4096)
    tracemalloc.start()
    try:
        for number, batch in enumerate(whole.epoch(order, 0)):
            np.testing.assert_array_equal(
                batch["x"][0], x[chosen[number * size]], err_msg=str(number)
            )
            assert type(batch["x"]) is np.ndarray
            assert np.shares_memory(batch["x"], x) == (order is None)
            del batch
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (0.3 if order is None else 2.6) * size * 64 * 4


@model
def classifier(x: Any = f32["batch", 64], label: Any = i64["batch"]) -> Any:
    logits = x >> Dense(2048) >> Dense(10)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def test_a_state_is_saved_and_evaluated_where_it_lies(tmp_path: Path) -> None:
    trainer = Trainer(training(classifier, minimize="loss", optimizer=adam(1e-3)), threads=1)
    data = {"x": np.ones((64, 64), np.float32), "label": np.zeros(64, np.int64)}
    trainer.fit(data, verbose=0)
    trainer.evaluate(data)  # its session is made
    state = trainer.state
    size = sum(x.nbytes for x in state.values())
    tracemalloc.start()
    try:
        trainer.save(tmp_path / "saved.safetensors")
        trainer.evaluate(data)
        trainer.export(tmp_path / "net.onnx")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 2
    trainer.fit(data, verbose=0)
    other = Trainer(trainer.recipe, threads=1)
    other.load(tmp_path / "saved.safetensors")
    for name, x in other.state.items():
        np.testing.assert_array_equal(x, state[name], err_msg=name)


def test_a_run_writes_its_state_where_it_lies(tmp_path: Path) -> None:
    """At its end there are the best state so far, and the first one, which the exported step begins
    with, but no copy of the last."""
    trainer = Trainer(training(classifier, minimize="loss", optimizer=adam(1e-3)), threads=1)
    data = {"x": np.ones((64, 64), np.float32), "label": np.zeros(64, np.int64)}
    trainer.fit(data, verbose=0, callbacks=[RunDirectory(tmp_path / "first")])
    size = sum(x.nbytes for x in trainer.state.values())
    tracemalloc.start()
    try:
        trainer.fit(data, verbose=0, callbacks=[RunDirectory(tmp_path / "run")])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * size
    saved = load_state(tmp_path / "run" / "checkpoint.safetensors")[0]
    for name, x in trainer.state.items():
        np.testing.assert_array_equal(saved[name], x, err_msg=name)


PROGRAM = r"""
import re
import numpy as np
from dsl import Dense, adam, f32, mean, model, sigmoid, training
from nncompile.compiler.compile import compile_step

@model
def net(x=f32["batch", 512]):
    x = x >> Dense(512)
    for i in range(12):
        x = sigmoid(x) * x
    return {"loss": mean(x)}

def now():
    return int(re.search(r"VmRSS:\s+(\d+)", open("/proc/self/status").read())[1])

runner = compile_step(training(net, optimizer=adam(1e-3))).runner(threads=1, native=False)
runner.step({"x": np.ones((2, 512), "f4")})
before = now()
x = np.ones((4096, 512), "f4")
found = []
for i in range(4):
    runner.step({"x": x})
    found.append(now() - before)
print(*found)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures resident memory")
def test_the_memory_of_a_step_is_kept_once() -> None:
    """Not that of the first run beside what onnxruntime planned in it: this step needs 36 arrays of
    eight megabytes, and kept 69."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert max(map(int, done.stdout.split())) < 8192 * 50
