"""The checks of ops catch mistakes: each kind is planted once in a correct op."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import GradientError
from nncompile.elementwise import stop_gradient
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import TupleType, Type, f32, f64
from tests import backends, op_checks, op_types
from tests.onnx_files import parsed
from tests.op_types import Case


class Cubed(Op):
    """factor · x³: right in every respect."""

    factor: float = 2.0

    def infer(self, x: Type) -> Type:
        return x

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (g * (3 * self.factor) * x * x,)

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return (self.factor * x**3).astype(x.dtype)

    def onnx(self, o: Any, x: str) -> str:
        return o.Mul(o.Mul(x, x), o.Mul(x, o.scalar(self.factor, o.type.dtype)))

    def torch(self, t: Any, x: str) -> str:
        return t.mul(t.pow(x, 3), self.factor)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 3],))


class Halves(Op):
    """2x and x²: right in every respect, with two results."""

    def infer(self, x: Type) -> TupleType:
        return TupleType((x, x))

    def pullback(self, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        first, second = g
        parts = [first * 2.0] if first is not None else []
        parts += [second * 2.0 * x] if second is not None else []
        return (sum(parts[1:], parts[0]),)

    def numpy(self, x: np.ndarray) -> Any:
        return 2 * x, x * x

    def onnx(self, o: Any, x: str) -> Any:
        return o.Add(x, x), o.Mul(x, x)

    def torch(self, t: Any, x: str) -> Any:
        return t.add(x, x), t.mul(x, x)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f64["n"],))


FAULTS: dict[str, tuple[str, Callable[..., Any], Callable[[Case], None]]] = {
    "shape": ("infer", lambda self, x: Type(x.dtype, (x.shape[0], 4)), op_checks.check_type),
    "a shape at size one only": (
        "numpy",
        lambda self, x: Cubed.numpy(self, x) if len(x) != 1 else x[0],
        op_checks.check_type,
    ),
    "dtype": ("infer", lambda self, x: Type(f64, x.shape), op_checks.check_type),
    "meaning": (
        "numpy",
        lambda self, x: (2 * x**3 + (x > 1)).astype(x.dtype),
        op_checks.check_onnx,
    ),
    "ONNX of another function": ("onnx", lambda self, o, x: o.Mul(x, x), op_checks.check_onnx),
    "ONNX of one size": (
        "onnx",
        lambda self, o, x: o.Reshape(
            o.Mul(o.Mul(x, x), o.Mul(x, o.scalar(2.0, f32))), o.ints([3, 3])
        ),
        op_checks.check_onnx,
    ),
    "ONNX that is not valid": (
        "onnx",
        lambda self, o, x: o.Mul(o.MatMul(x, o.constant(np.ones((5, 3), np.float32))), x),
        op_checks.check_onnx,
    ),
    "ONNX of another type": (
        "onnx",
        lambda self, o, x: o.cast(Cubed.onnx(self, o, x), f64),
        op_checks.check_onnx,
    ),
    "gradient": ("pullback", lambda self, g, y, x: (g * 5 * x * x,), op_checks.check_gradients),
    "no gradient": ("pullback", lambda self, g, y, x: (None,), op_checks.check_gradients),
    "gradient of the gradient": (
        "pullback",
        lambda self, g, y, x: (g * 6 * stop_gradient(x * x),),
        op_checks.check_gradients,
    ),
    "gradient by the forward value's place": (
        "pullback",
        lambda self, g, y, x: (6 * x * x + 0 * g,),
        op_checks.check_gradients,
    ),
    "gradient of another shape": (
        "pullback",
        lambda self, g, y, x: ((g * 6 * x * x).sum(),),
        op_checks.check_gradients,
    ),
}


def case_of(op_type: type[Op]) -> Case:
    return op_types.cases_of(op_type)[0]


def changed(op_type: type[Op], method: str, fault: Callable[..., Any]) -> type[Op]:
    """An op that differs in one method, and is in no table."""
    made = type(f"{op_type.__name__}With", (op_type,), {method: fault, "__module__": __name__})
    del Op.registry[made.__module__, made.__qualname__]
    return made


@pytest.mark.parametrize("op_type", [Cubed, Halves])
@pytest.mark.parametrize(
    "check",
    [
        op_checks.check_type,
        op_checks.check_onnx,
        op_checks.check_gradients,
        op_checks.check_gradient_onnx,
        op_checks.check_interned,
    ],
)
def test_a_right_op_passes(op_type: type[Op], check: Callable[[Case], None]) -> None:
    check(case_of(op_type))


@pytest.mark.parametrize("op_type", [Cubed, Halves])
def test_a_right_op_passes_in_torchscript(op_type: type[Op]) -> None:
    op_checks.check_torch(case_of(op_type))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str) -> None:
    method, fault, check = FAULTS[name]
    case = case_of(changed(Cubed, method, fault))
    with pytest.raises(Exception) as caught:
        check(case)
    assert not isinstance(caught.value, NameError | AttributeError)


@pytest.mark.parametrize(
    "fault",
    [
        lambda self, t, x: t.mul(x, x),
        lambda self, t, x: t.method(Cubed.torch(self, t, x), "to", f64),
        lambda self, t, x: t.method(Cubed.torch(self, t, x), "reshape", [3, 3]),
        lambda self, t, x: t.no_such_function(x),
    ],
)
def test_a_fault_in_torchscript_is_caught(fault: Callable[..., Any]) -> None:
    case = case_of(changed(Cubed, "torch", fault))
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        op_checks.check_torch(case)


@pytest.mark.parametrize("index", [0, 1])
def test_a_dropped_result_of_two_is_caught(index: int) -> None:
    def one_only(self: Op, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        kept = tuple(s if i == index else None for i, s in enumerate(g))
        return Halves.pullback(self, kept, y, x)

    with pytest.raises(AssertionError, match="order 1"):
        op_checks.check_gradients(case_of(changed(Halves, "pullback", one_only)))


class Tagged(Op):
    """Its field is equal to nothing but itself."""

    tag: object

    def infer(self, x: Type) -> Type:
        return x


def test_an_op_that_is_not_interned_is_caught() -> None:
    sample = Sample(Tagged(SimpleNamespace()), (f32["n"],))
    with pytest.raises((AssertionError, TypeError)):
        op_checks.check_interned(Case("tagged", sample))
    sample = Sample(Tagged(lambda: None), (f32["n"],))
    with pytest.raises((AssertionError, AttributeError, pickle.PicklingError)):
        op_checks.check_interned(Case("tagged", sample))


def test_a_refusal_names_the_op() -> None:
    def refuses(self: Op, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        raise GradientError("something has no gradient")

    made = changed(Cubed, "pullback", refuses)
    made.differentiable = False
    with pytest.raises(AssertionError):
        op_checks.check_gradients(case_of(made))


def test_an_op_without_samples_is_caught() -> None:
    made = changed(Cubed, "samples", classmethod(lambda cls: iter(())))
    with pytest.raises(AssertionError, match="no samples"):
        op_checks.check_samples(made)


def test_a_new_op_of_ours_is_seen() -> None:
    made = type("Newest", (Cubed,), {"__module__": "nncompile.ops.newest"})
    try:
        assert made in op_types.registered_ops()
    finally:
        del Op.registry[made.__module__, made.__qualname__]
    assert made not in op_types.registered_ops()


def test_an_input_that_is_written_over_is_caught() -> None:
    """BatchNormalization in training mode writes the running statistics over its inputs."""
    text = """
        g (float[n, 3] x, float[3] scale, float[3] bias, float[3] mean, float[3] variance)
            => (float[n, 3] y, float[3] z) {
            y, next_mean, next_variance =
                BatchNormalization <training_mode = 1> (x, scale, bias, mean, variance)
            z = Add (next_mean, next_variance)
        }"""
    run = backends.session(parsed(text, opset=21))
    feeds = {n: np.ones(3, np.float32) for n in ("scale", "bias", "mean", "variance")}
    feeds["x"] = np.arange(12, dtype=np.float32).reshape(4, 3)
    with pytest.raises(AssertionError, match="wrote over"):
        run(feeds, {"y": (4, 3), "z": (3,)})


def test_an_output_that_is_not_written_is_caught() -> None:
    """Buffers hold garbage before a run, so that zeros in fresh memory prove nothing."""
    for runtime_type in ("float", "double", "int64", "int32", "uint32", "bool"):
        buffer = backends.poisoned((2, 3), f"tensor({runtime_type})").numpy()
        assert np.isnan(buffer).all() if buffer.dtype.kind == "f" else buffer.all()
