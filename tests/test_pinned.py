"""Page-locked memory for batches: each buffer is locked once, used again when nobody has it, and
given back whatever ends the training. CUDA's two functions are stood in for."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, f32, i64, model, sgd, training
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import TrainingError
from nncompile.runtime.cuda import pinned
from nncompile.runtime.cuda.pinned import LEAST, PinnedMemory, page_locked, runtime
from nncompile.train import Event, Trainer
from nncompile.train import trainer as trainer_module
from nncompile.train.sources.whole import WholeData
from tests.small_models import assert_same

F32 = np.dtype(np.float32)
WIDE = LEAST // 64  # numbers in a row, of which sixteen take as much


class Standing:
    """Stands for the runtime of CUDA: what is locked, and how often each was."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.locked: dict[int, int] = {}
        self.calls: list[str] = []

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:
        self.calls.append("lock")
        if not self.works:
            return 2  # no memory
        assert address.value not in self.locked and address.value % 4096 == 0 and flags == 1
        self.locked[address.value] = size.value
        return 0

    def cudaHostUnregister(self, address: Any) -> int:
        self.calls.append("give back")
        del self.locked[address.value]
        return 0

    def cudaGetLastError(self) -> int:
        self.calls.append("forget")
        return 0

    def holds(self, array: np.ndarray) -> bool:
        """Whether all of an array is locked."""
        first = array.ctypes.data
        spans = ((a, a + n) for a, n in self.locked.items())
        return any(a <= first and first + array.nbytes <= b for a, b in spans)


def test_memory_is_used_again_when_nobody_has_it() -> None:
    standing = Standing()
    memory = PinnedMemory(standing, most=5 * LEAST)
    x = memory.array((LEAST // 4,), F32)
    assert x is not None and x.dtype == F32 and standing.holds(x)
    x[...] = 7
    part = x.reshape(2, -1)[1, 3:]
    del x
    y = memory.array((2, LEAST // 4), F32)
    assert y is not None and y.shape == (2, LEAST // 4) and standing.holds(y)
    y[...] = 5
    assert (part == 7).all() and memory.size == 3 * LEAST
    address = part.ctypes.data - 4 * (LEAST // 8 + 3)
    del part
    again = memory.array((LEAST,), np.dtype(np.uint8))
    assert again is not None and again.ctypes.data == address
    assert memory.array((LEAST // 4 - 1,), F32) is None  # too small
    assert memory.array((LEAST,), F32) is None  # more than is left
    assert standing.calls == ["lock"] * 2
    del again
    z = memory.array((2 * LEAST,), np.dtype(np.uint8))  # what is free is too small for it
    assert z is not None and standing.holds(z) and memory.size == 5 * LEAST
    memory.close()
    assert not standing.locked and standing.calls == ["lock"] * 3 + ["give back"] * 3
    assert (y == 5).all() and memory.array((LEAST,), F32) is None


def test_memory_that_cannot_be_locked_is_tried_once() -> None:
    standing = Standing(works=False)
    memory = PinnedMemory(standing)
    assert memory.array((LEAST,), F32) is None and memory.array((LEAST,), F32) is None
    memory.close()
    assert standing.calls == ["lock", "forget"] and memory.size == 0


def test_it_is_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> Any:
        raise AssertionError("nothing is looked for")

    with page_locked("cpu", found) as place:
        assert place is None
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    standing = Standing()
    with pytest.raises(ZeroDivisionError), page_locked(("cuda", {}), lambda: standing) as place:
        assert place is not None
        assert place((LEAST,), F32) is not None and standing.locked
        1 / 0  # noqa: B018  # an error within the block
    assert not standing.locked
    with page_locked("cuda", lambda: None) as place:
        assert place is None


@model
def wide(x=f32["batch", WIDE], kind=i64["batch"]):
    y = (x >> Dense(1)).reshape(-1)
    return {"loss": ((y - kind) ** 2).mean()}


COMPILED = compile_step(training(wide, optimizer=sgd(1e-5), batch_size=16))


def examples() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(150, WIDE)).astype(np.float32)
    return {"x": x, "kind": np.arange(150) % 3}


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Standing:
    """Trainers on the CPU gather batches as those on CUDA do."""
    found = Standing()
    monkeypatch.setattr(pinned, "CUDA", "CPUExecutionProvider")
    locked = pinned.page_locked
    monkeypatch.setattr(trainer_module, "page_locked", lambda p: locked(p, lambda: found))
    return found


@pytest.mark.parametrize("every", [1, 4])
def test_a_training_is_the_same(every: int, standing: Standing) -> None:
    one, ours = (Trainer(COMPILED, metrics_every=n, threads=1) for n in (1, every))
    standing.works = False
    expected: list[np.ndarray] = []
    history = one.fit(examples(), epochs=2, callbacks=Keeping(expected, standing))
    assert standing.calls == ["lock", "forget"]
    standing.works, standing.calls = True, []
    kept: list[np.ndarray] = []
    assert (
        ours.fit(examples(), epochs=2, callbacks=Keeping(kept, standing)).epochs == history.epochs
    )
    assert_same(ours.state, one.state)
    for x, y in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not standing.locked


class Keeping:
    """Keeps every third batch, and asks whether each was locked: all but the last of an epoch,
    which is smaller, is."""

    may_lag = True

    def __init__(self, kept: list[np.ndarray], standing: Standing) -> None:
        self.kept, self.standing = kept, standing

    def on_step(self, event: Event) -> None:
        x = event.batch["x"]
        assert self.standing.holds(x) is (self.standing.works and len(x) == 16)
        if event.step % 3 == 0:
            self.kept.append(x)


def test_few_buffers_serve_all_batches() -> None:
    standing, rows = Standing(), examples()
    whole = WholeData(rows, {*rows}, dict.fromkeys(rows), 16)
    memory = PinnedMemory(standing)
    for epoch in range(4):
        whole.place = None
        plain = [*whole.epoch((0, epoch), 0)]
        whole.place = memory.array
        for batch, expected in zip(whole.epoch((0, epoch), 0), plain, strict=True):
            assert_same(batch, expected)
    assert standing.calls == ["lock"] * 2
    for batch in whole.epoch(None, 0):  # which lie in the data, and are not copied
        assert np.shares_memory(batch["x"], rows["x"])
    memory.close()


def test_memory_is_given_back_after_an_error(standing: Standing) -> None:
    lost = examples()
    lost["x"][40, 0] = 3e38
    ours = Trainer(COMPILED, metrics_every=4, threads=1)
    with pytest.raises(TrainingError):
        ours.fit(lost)
    with pytest.raises(KeyError):
        ours.fit(examples(), callbacks=lambda event: {}["nothing"])
    assert standing.calls.count("lock") == standing.calls.count("give back") > 1
    assert not standing.locked


SOURCE = """
static unsigned long locked;
int cudaHostRegister(void *address, unsigned long size, unsigned flags) {
    locked += size; return flags != 1 || (unsigned long) address % 4096;
}
int cudaHostUnregister(void *address) { locked = 0; return address == 0; }
unsigned long locked_bytes(void) { return locked; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_runtime_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    name = "libcudart-standing-in.so.12"
    (tmp_path / "runtime.c").write_text(SOURCE)
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "runtime.c", "-o", name]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert runtime([name, str(tmp_path / name)]) is None  # it is not loaded for that
    library: Any = ctypes.CDLL(str(tmp_path / name))
    library.locked_bytes.restype = ctypes.c_ulong
    found = runtime(["libcudart-missing.so.1", name])
    assert found is not None
    memory = PinnedMemory(found)
    assert memory.array((LEAST + 1,), np.dtype(np.uint8)) is not None
    assert library.locked_bytes() == LEAST + 4096
    memory.close()
    assert library.locked_bytes() == 0
