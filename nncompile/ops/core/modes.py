"""What is computed one way while training and another way afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.dims import same_shape
from nncompile.ir.op import Sample, Value
from nncompile.ir.types import Type, f32, i64
from nncompile.ops.core.annotations import Annotation


class Training(Annotation):
    """`trained`, in whose place the inference pass puts `used`.

    In the graphs of training, gradients included, it is its first argument; a gradient in a graph
    of inference is that of the second.
    """

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        if not y.dtype.is_float:
            return None, None
        zero = zeros_like(g)
        return Training()(g, zero), Training()(zero, g)

    def infer(self, trained: Type, used: Type) -> Type:
        if trained.dtype is not used.dtype:
            raise DTypeError(
                f"the training value and the inference value differ in element type, {trained} "
                f"and {used}",
                hint="y.astype(x.dtype) converts one of them",
            )
        if same_shape(trained.shape, used.shape) is not True:
            raise ShapeError(
                "the training value and the inference value are not known to have the same "
                f"shape, {trained} and "
                f"{used}"
            )
        return trained

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 2], f32["n", 2]))
        yield Sample(cls(), (i64["n"], i64["n"]))


@suggests_names
def while_training(trained: Any, used: Any) -> Value:
    """`trained` while the model is trained, `used` in its inference graph (and where it is
    evaluated). Both have one type; gradients are those of `trained`, in an inference graph of
    `used`.

    It is how dropout and augmentation vanish: `while_training(noisy, x)`. Raises `DTypeError` or
    `ShapeError` where the types differ.
    """
    trained = as_value(trained)
    used = as_value(used, like=trained)
    return trained if trained is used else Training()(trained, used)
