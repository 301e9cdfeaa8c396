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

    The next `held` arguments are the values that enter the block; the others are its parameters.
    The second computation starts from these values behind barriers that wait for the gradient of
    the block, so that it cannot be merged with the first nor run before.
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
        results, inputs = args[: self.count], args[self.count : self.count + self.held]
        cotangents = [(v, c) for v, c in zip(results, g, strict=True) if c is not None]
        name = f"recomputed {y.digest.hex()}"
        formals = [Input(f"{name}.{i}", x.type)() for i, x in enumerate(inputs)]
        incoming = [Input(f"{name}.gradient.{i}", c.type)() for i, (_, c) in enumerate(cotangents)]
        recomputed = replace([v for v, _ in cotangents], dict(zip(inputs, formals, strict=True)))
        sources = [*formals, *args[self.count + self.held :]]
        real = [x for x in sources if x.dtype.is_float]
        seeds: dict[Value, Value] = {}
        for v, gradient in zip(recomputed, incoming, strict=True):
            seeds[v] = seeds[v] + gradient if v in seeds else gradient
        gradients = backward(seeds, real)
        trigger = cotangents[0][1]
        new = {f: barrier(x, trigger) for f, x in zip(formals, inputs, strict=True)}
        new |= dict(zip(incoming, (gradient for _, gradient in cotangents), strict=True))
        by_source = dict(zip(real, replace(gradients, new), strict=True))
        # The gradients of the parameters come first: computed late, they would keep alive what was
        # recomputed for them.
        first = [by_source[x] for x in sources[len(formals) :] if x in by_source]
        if first:
            by_source |= {f: barrier(by_source[f], *first) for f in formals if f in by_source}
        return (*(None for _ in results), *(by_source.get(x) for x in sources))

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
