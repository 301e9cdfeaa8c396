"""`python -m tests.faults onnx N`: wrong and hostile ONNX files for `load_onnx`.

Each is refused by one message of ours, or it is a model that is exported and gives the numbers that
onnxruntime, without its optimizations, gives of the file, where that takes it.
"""

from __future__ import annotations

import ctypes
import os
import random
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nncompile import export, load_onnx
from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.ir.dims import Dim, dim, substitute, symbols
from nncompile.runtime.child import in_child
from tests.faults import workers
from tests.faults.mutations import PLAIN, reassembled
from tests.faults.onnx_hostile import HOSTILE
from tests.faults.onnx_mutations import CHANGES
from tests.faults.onnx_seeds import SEEDS
from tests.faults.workers import Cases, Outcome, files_outside, fresh
from tests.sessions import plain_session

_SECONDS = 10  # of the processor, for a file
_WAITED = 300  # seconds, also where others compute
_MEMORY = 8 * 2**30  # bytes of addresses, most of which are those of libraries
_GROWTH = 512  # MB that a case may add to what the process holds
_RUN = 5  # seconds for onnxruntime
_LARGE = "large.bin"
_FINITE = 1e30
_MOST = 1 << 20  # elements that are fed
FAMILIES = {"bytes": 6, "fields": 10, **dict.fromkeys(CHANGES, 8), **dict.fromkeys(HOSTILE, 3)}


def main(count: int, seed: int) -> int:
    """Makes `count` wrong files, and reports."""
    seeds = range(seed, seed + count)
    return workers.reported(lambda directory: outcomes_of(seeds, directory), count, list(FAMILIES))


def outcomes_of(seeds: Sequence[int], directory: Path) -> Iterator[Outcome]:
    """What became of the case of each seed, in a worker process with limits."""
    valid = directory / "valid"
    valid.mkdir()
    for name, make in SEEDS.items():
        (valid / f"{name}.onnx").write_bytes(make(directory).SerializeToString())
    (directory / "seed.onnx").unlink()
    (valid / _LARGE).touch()
    os.truncate(valid / _LARGE, 2**42)  # of nothing: it takes no room
    cases = Cases(family_of, run_case, _WAITED, _MEMORY, processor_seconds=_SECONDS)
    yield from workers.outcomes_of(seeds, directory, cases)


def family_of(seed: int) -> str:
    return random.Random(f"family {seed}").choices(list(FAMILIES), [*FAMILIES.values()])[0]


def made(seed: int, valid: Path) -> bytes:
    """The wrong file of that seed."""
    r, family = random.Random(seed), family_of(seed)
    if family in HOSTILE:
        hostile = HOSTILE[family](r)
        return hostile if isinstance(hostile, bytes) else bytes(hostile.SerializeToString())
    content = r.choice(sorted(valid.glob("*.onnx"))).read_bytes()
    if family == "bytes":
        return r.choice(PLAIN)(r, content)
    if family == "fields":
        return reassembled(r, content)
    model = onnx.ModelProto.FromString(content)
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        r.choice(CHANGES[family])(r, model)
    return bytes(model.SerializeToString())


def _put_files(inner: Path, valid: Path) -> None:
    """What weights may be said to lie in: right, short, terabytes of nothing, and what is no
    file."""
    (inner / "w.bin").write_bytes(bytes(4096))
    (inner / "folder").mkdir()
    (inner / "link.bin").symlink_to("/etc/hostname")
    os.mkfifo(inner / "pipe")
    os.link(valid / _LARGE, inner / _LARGE)


def run_case(seed: int, directory: Path) -> Outcome:
    """Makes the file of that seed, has it imported, and what is imported run."""
    inner = fresh(directory)
    _put_files(inner, directory / "valid")
    (inner / "model.onnx").write_bytes(made(seed, directory / "valid"))
    kind, text = judged(inner / "model.onnx")
    outside = files_outside(directory)
    if outside:
        kind, text = "files outside", ", ".join(outside)
    return Outcome(seed, family_of(seed), kind, text)


def judged(path: Path) -> tuple[str, str]:
    """What becomes of a file, and the message or what is wrong with it."""
    _forget_peak()
    before = _peak()
    try:
        exported = _exported(path)
    except CompileError as error:
        kind, text = _problem_of(error) or "refused", str(error)
    except BaseException:  # whatever it is
        kind, text = "traceback", traceback.format_exc()
    else:
        kind, text = "read", ""
    growth = _peak() - before
    if growth > _GROWTH and kind in ("read", "refused"):
        return "memory", f"{growth:,.0f} MB more\n{text}"
    return _compared(path, exported) if kind == "read" else (kind, text)


def _exported(path: Path) -> Path:
    """The file as it is exported again."""
    model = load_onnx(path)
    str(model.report)
    export(model, path.parent / "out.onnx", seed=0)
    return path.parent / "out.onnx"


def _problem_of(error: CompileError) -> str:
    """What is wrong with a message; empty for a good one."""
    text = str(error)
    if not text.replace("\n", "").isprintable():
        return "control characters"
    if len(text) > 20_000:
        return "long message"
    if isinstance(error, ImportRefused):
        if any(r.is_fault for r in error.refusals):
            error.__traceback__ = None
            return "fault"
        if any(isinstance(r.cause, MemoryError) for r in error.refusals):
            return "memory"
    if "MemoryError" in text:
        return "memory"
    return "internal error" if type(error).__name__ == "InternalError" else ""


def _compared(path: Path, exported: Path) -> tuple[str, str]:
    """Whether the exported file gives the numbers of the one it is of: "equal", "other numbers", or
    "read" where onnxruntime does not take that one."""
    try:
        expected, names, feeds = in_child(_expected, path, exported, what="it", timeout=_RUN)
    except (CompileError, RuntimeError):  # it is not onnxruntime that is looked at here
        return "read", ""
    try:
        got = in_child(_run, exported, feeds, what="it", timeout=4 * _RUN)
    except (CompileError, RuntimeError) as error:
        return "other numbers", f"it does not run: {error}"
    for name, a, b in zip(names, got, expected, strict=False):
        problem = _different(a, b)
        if problem:
            shown = {k: v if v.size < 50 else v.shape for k, v in feeds.items()}
            return "other numbers", f"{name}: {problem}\n{a}\nis not\n{b}\nof {shown}"
    return "equal", ""


def _expected(path: Path, exported: Path) -> Any:
    original = plain_session(path, optimized=False)
    feeds = _feeds(onnx.load(exported))
    needed = {i.name for i in original.get_inputs()}
    model = onnx.load(path, load_external_data=False)
    random_ops = {"Dropout", "RandomNormal", "RandomUniform", "RandomNormalLike", "Bernoulli",
                  "RandomUniformLike", "Multinomial"}  # fmt: skip
    if not needed <= feeds.keys():
        shapes = {i.name: i for i in original.get_inputs() if i.name not in feeds}
        feeds |= {n: _missing(i) for n, i in shapes.items()}
    if any(n.op_type in random_ops for n in model.graph.node):
        raise RuntimeError("its numbers are random")
    stored = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    numbers = [x for n in model.graph.node for a in n.attribute for x in (a.f, *a.floats)]
    arrays = [np.asarray(numbers), *map(onnx.numpy_helper.to_array, stored)]
    if not all((np.abs(x) < _FINITE).all() for x in arrays):
        raise RuntimeError("onnxruntime cuts NaN off in some operators, and hands it on in others")
    names = [o.name for o in model.graph.output]
    results = original.run(names, {n: x for n, x in feeds.items() if n in needed})
    return results, names, feeds


def _missing(formal: Any) -> Any:
    """An input that the exported file does not need."""
    if formal.type != "tensor(float)":
        raise RuntimeError("an input that cannot be made")
    return np.ones([d if isinstance(d, int) else 2 for d in formal.shape], np.float32)


def _run(path: Path, feeds: dict[str, Any]) -> Any:
    session = plain_session(path)
    needed = {i.name for i in session.get_inputs()}
    return session.run(None, {n: x for n, x in feeds.items() if n in needed})


def _feeds(exported: onnx.ModelProto) -> dict[str, Any]:
    """Small inputs of the exported file."""
    random_ = np.random.default_rng(0)
    sizes: dict[Any, Dim] = {}
    feeds = {}
    for formal in exported.graph.input:
        tensor = formal.type.tensor_type
        declared = [dim(d.dim_param) if d.dim_param else d.dim_value for d in tensor.shape.dim]
        for name in sorted(symbols(declared), key=str):
            sizes.setdefault(name, 3 + len(sizes) % 2)
        shape = [int(substitute(size, sizes)) for size in declared]
        if min(shape, default=0) < 0:
            raise RuntimeError("sizes below zero")
        if np.prod(shape, dtype=float) > _MOST:
            raise RuntimeError("an input that is large")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        if dtype.kind == "f":
            feeds[formal.name] = random_.standard_normal(shape).astype(dtype)
        else:
            feeds[formal.name] = np.asarray(random_.integers(0, 3, shape)).astype(dtype)
    return feeds


def _different(a: Any, b: Any) -> str:
    if isinstance(b, list):
        return ""
    if a.dtype == b.dtype and not (a.size or b.size):
        return ""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} is not {b.dtype}{list(b.shape)}"
    if b.dtype.kind not in "f":
        return "" if np.array_equal(a, b) else "other whole numbers"
    with np.errstate(all="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        largest = np.max(np.abs(y), where=np.isfinite(y), initial=0)
        tolerance = 1e-2 if b.dtype.itemsize == 2 else 1e-4
        same = (np.abs(x - y) <= tolerance * max(float(largest), 1e-30)) | (x == y)
        same |= ~np.isfinite(x) & ~np.isfinite(y)
    if not np.isfinite(y).all():  # beyond what an element type holds, 0·∞ depends on the way
        same |= ~np.isfinite(x) | ~np.isfinite(y)
    return "" if same.all() else f"differs at {np.argwhere(~same)[:3].tolist()}"


def _forget_peak() -> None:
    """The largest memory of this process is counted from here on."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The largest memory that this process held, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
