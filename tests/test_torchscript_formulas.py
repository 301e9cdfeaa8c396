"""Every call of formulas in TorchScript, on tensors and numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.elementwise.domains import domains
from nncompile.elementwise.numpy_target import NumpyTarget
from nncompile.elementwise.primitives import PRIMITIVE_CALLS
from nncompile.ir.types import INTEGERS, DType, boolean, f32, f64
from tests.torchscript_checks import fed

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 30.0, -100.0, np.inf, -np.inf, np.nan])


def integers(dtype: DType) -> np.ndarray:
    """Small ones, the ends of the type, and what lies about its highest bit."""
    least, largest = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    numbers = {0, 1, -1, 7, -8, least, least + 1, largest // 2, largest // 2 + 1, largest}
    return np.array(sorted(n for n in numbers if least <= n <= largest), dtype.numpy)


SAMPLES: dict[DType, np.ndarray] = {
    f32: SPECIAL.astype(np.float32),
    f64: SPECIAL,
    **{d: integers(d) for d in INTEGERS},
    boolean: np.array([False, True]),
}
DIVISIONS = ("mod", "floor_divide")


def in_double(call: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: NumpyTarget().call(call, f64, x.astype(np.float64)).astype(x.dtype)


def in_numpy(call: str, *arrays: np.ndarray) -> np.ndarray:
    """The meaning of a call, written down once more."""
    own = {
        "erf": lambda x: np.vectorize(math.erf, otypes=[x.dtype])(x),
        "erfc": lambda x: np.vectorize(math.erfc, otypes=[x.dtype])(x),
        # numpy has none of them; see test_special_functions.
        **{name: in_double(name) for name in ("erfinv", "lgamma", "digamma")},
        **dict.fromkeys(("sigmoid", "gate"), lambda x: 1 / (1 + np.exp(-x))),
        "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
        "relu": lambda x: np.maximum(x, x.dtype.type(0)),
        "round": np.rint,
        "stop_gradient": lambda x: x,
    }
    with np.errstate(all="ignore"):
        return np.asarray((own.get(call) or getattr(np, call))(*arrays))


TAKEN = {(d.name, d.dtypes[-1]) for d in domains()}
CALLS = sorted(TAKEN | {(call, f64) for call, dtype in TAKEN if dtype is f32}, key=str)


def test_every_call_is_tested() -> None:
    assert {call for call, _ in CALLS} == set(PRIMITIVE_CALLS)


@pytest.mark.parametrize(("call", "dtype"), CALLS, ids=lambda x: str(x))
def test_every_call_of_formulas_is_lowered(
    call: str, dtype: DType, torchscript: SimpleNamespace
) -> None:
    """Each on tensors and, in every place, on a number; special values included."""
    arity = PRIMITIVE_CALLS[call]
    dtypes = (boolean, dtype, dtype) if call == "where" else (dtype,) * arity
    pools = [SAMPLES[d] for d in dtypes]
    rows = np.array(list(itertools.product(*map(range, map(len, pools))))).T
    arrays = [pool[index] for pool, index in zip(pools, rows, strict=True)]
    arrays = sensible(call, dtype, arrays)
    for literal in (None, *range(arity)):
        given = [
            a if i != literal else np.full_like(a, a[len(a) // 2]) for i, a in enumerate(arrays)
        ]
        expected = in_numpy(call, *given)
        actual = lowered(torchscript, call, dtypes, given, literal)
        assert actual.shape == (expected.shape if literal is None or arity > 1 else ())
        assert actual.dtype == expected.dtype
        if literal is not None and arity == 1:
            expected = expected[0]
        tolerance = 1e-5 if expected.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(actual, expected, tolerance, 1e-30, err_msg=f"number {literal}")


def sensible(call: str, dtype: DType, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Without what integers do not have: division by zero, powers and shifts of large numbers."""
    if dtype.is_integer and call in (*DIVISIONS, "power", "left_shift", "right_shift"):
        right = arrays[1].astype(object)
        keep = right != 0 if call in DIVISIONS else (right >= 0) & (right < 8)
        arrays = [a[keep.astype(bool)] for a in arrays]
    return arrays


def scripted(torchscript: SimpleNamespace, emitter: Any, names: list[str], result: str) -> Any:
    """What an emitter wrote, as a function of tensors of these names."""
    writing = torchscript.backend.writing
    function = writing.Block(
        f"def f({', '.join(f'{n}: Tensor' for n in names)}) -> Tensor: ...",
        [*emitter.statements, writing.Line(f"return {result}")],
    )
    source = writing.written([function], emitter.results, writing.Names())
    torch = torchscript.torch  # as the source calls it
    return torch.jit.CompilationUnit(source).f


def lowered(
    torchscript: SimpleNamespace,
    call: str,
    dtypes: tuple[DType, ...],
    arrays: list[np.ndarray],
    literal: int | None,
) -> np.ndarray:
    """The call by TorchScript; argument number `literal` is a number in its source."""
    backend = torchscript.backend
    emitter = backend.Emitter()
    target = backend.TorchFormulas(emitter)
    names = [f"x{i}" for i in range(len(arrays))]
    operands = [
        target.literal(a.flat[0].item(), d) if i == literal else name
        for i, (name, a, d) in enumerate(zip(names, arrays, dtypes, strict=True))
    ]
    result = target.tensor(target.call(call, dtypes[-1], *operands))
    torch = torchscript.torch
    tensors = fed(torch, *arrays)
    kinds = [backend.carriers.carrier(d).name for d in dtypes]
    carried = [t.to(getattr(torch, kind)) for t, kind in zip(tensors, kinds, strict=True)]
    found = scripted(torchscript, emitter, names, result)(*carried).numpy()
    truth = call in {"isnan", "isinf", "less", "less_equal", "equal", "not_equal"}
    return found if truth else found.astype(dtypes[-1].numpy)


def test_operations_within_operations(torchscript: SimpleNamespace) -> None:
    """TorchScript's order of operations is not Python's: `~` binds less than `&`."""
    t = torchscript.backend.Emitter()
    inverse, difference = t.bitwise_not("x"), t.sub("x", t.sub("y", t.neg("x")))
    result = t.mul(t.bitwise_and(inverse, "y"), difference)
    x, y = 0b1100, 0b1010
    tensors = fed(torchscript.torch, np.array(x), np.array(y))
    assert scripted(torchscript, t, ["x", "y"], result)(*tensors) == (~x & y) * (x - (y + x))
