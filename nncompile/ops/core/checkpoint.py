"""The border of a block whose inner values are computed again for the gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nncompile.ir.barriers import barrier
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import Input
from nncompile.ir.op import Backward, Op, Sample, Value
from nncompile.ir.transform import replace
from nncompile.ir.types import TupleType, Type, f32


class Recompute(Op):
    """The first `count` arguments, whose gradients are taken through a second computation of them.

    The next `held` arguments are what enters the block, each a `Held` that the block is computed
    from; the others are its parameters. The second computation starts from the held values behind
    barriers that wait for the gradient of the block, so that it cannot be merged with the first nor
    run before.
    """

    count: int
    held: int
    moves = True
    differentiable = False  # the samples' first arguments are computed from nothing
    mixes = True

    def infer(self, *args: Type) -> TupleType:
        return TupleType(args[: self.count])

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> Sequence[Value | None]:
        args = y.args
        made, entering = args[: self.count], args[self.count : self.count + self.held]
        given = [(v, gradient) for v, gradient in zip(made, g, strict=True) if gradient is not None]
        name = f"recomputed {y.digest.hex()}"
        formals = [Input(f"{name}.{i}", x.type)() for i, x in enumerate(entering)]
        gradients = [Input(f"{name}.gradient.{i}", s.type)() for i, (_, s) in enumerate(given)]
        again = replace([v for v, _ in given], dict(zip(entering, formals, strict=True)))
        sources = [*formals, *args[self.count + self.held :]]
        real = [x for x in sources if x.dtype.is_float]
        seeds: dict[Value, Value] = {}
        for v, gradient in zip(again, gradients, strict=True):
            seeds[v] = seeds[v] + gradient if v in seeds else gradient
        found = backward(seeds, real)
        first = given[0][1]
        new = {f: barrier(x, first) for f, x in zip(formals, entering, strict=True)}
        new |= dict(zip(gradients, (gradient for _, gradient in given), strict=True))
        by_source = dict(zip(real, replace(found, new), strict=True))
        # What comes before waits for the gradients of the parameters: put off, these would keep
        # alive what was computed again for them.
        own = [by_source[x] for x in sources[len(formals) :] if x in by_source]
        if own:
            by_source |= {f: barrier(by_source[f], *own) for f in formals if f in by_source}
        return (*(None for _ in made), *(by_source.get(x) for x in sources))

    def numpy(self, *arrays: Any) -> Any:
        return arrays[: self.count]

    def onnx(self, o: OnnxEmitter, *args: str) -> Any:
        return args[: self.count]

    def torch(self, t: TorchEmitter, *args: str) -> Any:
        return args[: self.count]

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(1, 1), (f32["n", 2], f32["n", 3], f32[3, 2]))
        yield Sample(cls(2, 0), (f32["n", 2], f32["n", 3]))
