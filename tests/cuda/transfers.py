"""What goes between main memory and the device: steps that are made ahead, copies that nobody asked
for, and batches from page-locked memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    MaxPool2d,
    accuracy,
    adam,
    cross_entropy,
    f32,
    i64,
    log,
    model,
    relu,
    training,
)
from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.diagnostics.errors import TrainingError
from nncompile.runtime.buffers import buffer_like
from nncompile.runtime.cuda.pinned import page_locked
from nncompile.train import Trainer
from tests.cuda.device import EXACT, FULL_NAMES

EVERY = (1, 4, 16)
BATCH = (64, 3, 224, 224)
SIZE = 64


@model
def convolutional(image=f32["batch", 1, 16, 16], label=i64["batch"]):
    x = image >> Conv2d(8, 3, padding="same") >> BatchNorm() >> relu >> MaxPool2d(2)
    logits = x.reshape(-1, 512) >> Dropout(0.2) >> Dense(64, relu) >> Dense(10)
    lost = log(image[:, 0, 0, 0].min() + 9)
    return {
        "loss": cross_entropy(logits, label) + 1e-6 * lost,
        "accuracy": accuracy(logits, label),
    }


def examples(lost_at: int = 0) -> dict[str, np.ndarray]:
    """Forty batches and a smaller one; that of the step `lost_at` makes its loss NaN."""
    random = np.random.default_rng(0)
    images = random.normal(size=(40 * SIZE + 9, 1, 16, 16)).astype(np.float32)
    if lost_at:
        images[SIZE * lost_at - 5, 0, 0, 0] = -50
    return {"image": images, "label": random.integers(0, 10, len(images))}


def compiled() -> CompiledStep:
    return compile_step(training(convolutional, optimizer=adam(1e-3), batch_size=SIZE))


def lines(provider: str) -> Iterator[tuple[str, bool]]:
    """What is found, and whether it is as it should be."""
    step = compiled()
    device = (provider, EXACT.get(FULL_NAMES[provider], {}))
    found = {n: _trained(step, device, n) for n in EVERY}
    again = _trained(step, device, 1)
    repeated = _same(found[1], again)
    yield f"the same training twice: the bits are {'equal' if repeated else 'NOT equal'}", True
    for n in EVERY[1:]:
        differs = _difference(found[1], found[n])
        # Where the device itself does not repeat its bits, no other run can have them.
        holds = differs == 0 if repeated else differs < 1e-2
        yield f"metrics of {n} steps read together: differs by {differs:.1e}", holds
    texts = [_lost(step, device, n) for n in EVERY]
    yield f"a loss that is lost: {texts[0]}", len({*texts}) == 1 and "at step 23" in texts[0]
    for n in EVERY:
        runner = step.runner(None, device, ahead=n)
        batch = {name: x[:SIZE] for name, x in examples().items()}
        for _ in range(3):
            runner.step(batch)
        copies = implicit_copies(runner)
        on_host = [x for x in copies if x.endswith("in main memory")] if n == 1 else []
        told = f"copies that nobody asked for, at {n}: {', '.join(copies) or 'none'}"
        yield told, copies == on_host  # metrics that are read after each step are copied by it
        yield f"{_speed(step, device, n)} steps a second, metrics every {n}", True
    yield from _copies(provider)


def _trained(step: CompiledStep, device: Any, every: int) -> dict[str, np.ndarray]:
    trainer = Trainer(step, device, threads=1, metrics_every=every)
    history = trainer.fit(examples(), epochs=2, verbose=0)
    figures = {f"{n} {i}": np.asarray(x) for i, e in enumerate(history) for n, x in e.items()}
    return {**trainer.state, **figures}


def _lost(step: CompiledStep, device: Any, every: int) -> str:
    trainer = Trainer(step, device, threads=1, metrics_every=every)
    try:
        trainer.fit(examples(23), shuffle=False, verbose=0)
    except TrainingError as error:
        return f"{error.message}, left at {trainer.step}"
    return "nothing was found"


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return _difference(one, other) == 0


def _difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """The largest, of what is larger than one by its size."""
    largest = 0.0
    for name, x in one.items():
        a, b = x.astype(np.float64), other[name].astype(np.float64)
        scale = max(1.0, float(np.abs(a).max(initial=0)))
        largest = max(largest, float(np.abs(a - b).max(initial=0)) / scale)
    return largest


def implicit_copies(runner: Any) -> list[str]:
    """What onnxruntime copies for a step besides the batch that is fed: inputs that are bound on
    another device than they are read on, results that are bound in main memory, and results that
    do not lie in what was bound."""
    at, device = runner._at, runner.session.device[0]
    found = [f"{name} is read elsewhere" for name, _ in runner._batch.misplaced[0]]
    results = dict(zip(runner._order, at.binding.get_outputs(), strict=True))
    bound = {result: runner._sets[at.current][name] for name, result in runner.state_map.items()}
    for name, result in results.items():
        if result.device_name().lower() != device:
            found.append(f"{name} in main memory")
        elif name in bound and result.data_ptr() != bound[name].data_ptr():
            found.append(f"{name} is not where it was bound")
    return found


def _speed(step: CompiledStep, device: Any, every: int) -> str:
    """Steps a second of a training that is under way."""
    trainer = Trainer(step, device, threads=1, metrics_every=every)
    data = examples()
    trainer.fit(data, epochs=1, verbose=0)
    start, before = time.perf_counter(), trainer.step
    trainer.fit(data, epochs=5, verbose=0)
    return f"{(trainer.step - before) / (time.perf_counter() - start):,.0f}"


def _copies(provider: str) -> Iterator[tuple[str, bool]]:
    """How long a large batch takes to the device."""
    source = np.random.default_rng(0).normal(size=BATCH).astype(np.float32)
    buffer = buffer_like(source, (provider, 0))
    with page_locked(provider) as place:
        pinned = None if place is None else place(BATCH, source.dtype)
        told = {"memory as any other": source}
        if pinned is not None:
            pinned[...] = source
            told["page-locked memory"] = pinned
        for name, array in told.items():
            times = []
            for _ in range(9):
                start = time.perf_counter()
                buffer.update_inplace(array)
                times.append(time.perf_counter() - start)
            rate = array.nbytes / min(times) / 1e9
            equal = np.array_equal(buffer.numpy(), source)
            text = f"{array.nbytes / 2**20:.0f} MB to the device from {name}"
            yield f"{text}: {min(times) * 1e3:.2f} ms, {rate:.1f} GB/s", equal
    if provider == "cuda":
        yield f"memory {'can' if pinned is not None else 'CANNOT'} be page-locked", True
