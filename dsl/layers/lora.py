"""Low-rank adaptation: a trained model learns something new by few further weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dsl.building import Builder, active
from dsl.initializers import VarianceScaling, zeros
from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.options import real
from nncompile.ir.graph import Input
from nncompile.ir.names import matches
from nncompile.ir.op import Value
from nncompile.ops import reshape

# As the paper's own code (and torch's dense layers) start: uniform within ±1/√in.
_START = VarianceScaling(1 / 3, "in", "uniform")


@suggests_options
@dataclass(frozen=True, eq=False)
class LoRA:
    """A layer whose weight matrices W are W + (alpha/rank)·A·B (Hu et al. 2021), in all layers
    within it: dense ones, the projections of attention, embeddings; and whose convolutions have
    such ones of `rank` filters and then one of kernel 1 beside them, as in the paper's own code.

    Names stay those of the layer, so that a checkpoint of it without adaptation loads by name. To
    each f32[n, m] `weight` come `lora_a` f32[n, rank] and `lora_b` f32[rank, m] beside it (to
    another parameter `p`, `lora_a_p` and `lora_b_p`); to the kernels f32[n, m, *kernel] of a
    convolution, of channels in groups, too, `lora_a` f32[rank, m, *kernel] and `lora_b`
    f32[n, rank, 1, …]. B starts at 0: at first the result is the layer's. `params` are patterns of
    the paths of what is adapted; all matrices and kernels by default. With
    `training(..., params="*.lora_*")` the layer's own weights stay as they are.

    >>> from dsl import Dense, f32, model
    >>> @model
    ... def net(x=f32["batch", 8]):
    ...     return x >> LoRA(Dense(4, name="head"), rank=2)
    >>> list(net.parameters)
    ['head.weight', 'head.lora_a', 'head.lora_b', 'head.bias']

    Of two within each other the inner one counts. Raises `ModelError` for a rank below 1, what is
    no layer, and patterns that match no matrix and no kernels.
    """

    layer: Callable[..., Any]
    rank: int = 4
    alpha: float | None = None  # the rank, which makes the factor 1
    params: str | Sequence[str] = "*"
    init: Any = _START

    def __post_init__(self) -> None:
        whole_number("the rank of LoRA", self.rank, 1)
        if self.alpha is not None:
            real("the alpha of LoRA", self.alpha)
        if not callable(self.layer) or isinstance(self.layer, type):
            raise ModelError(
                f"LoRA adapts a layer, got {self.layer!r}", hint="LoRA(Dense(8), rank=4)"
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        adapted: list[str] = []

        def adapt(builder: Builder, owner: str, name: str, weight: Value) -> Value:
            path = f"{owner}.{name}" if owner else name
            if name.startswith("lora_") or weight.rank < 2 or not matches(path, self.params):
                return weight
            adapted.append(path)
            if not isinstance(weight.op, Input):  # adapted already, by a LoRA within this one
                return weight
            return self._adapted(builder, owner, name, weight)

        with active("LoRA").adapting(adapt):
            result = self.layer(*args, **options)
        if not adapted:
            raise ModelError(
                f"LoRA found no weight matrix (or kernels) in {self.layer!r} that "
                f"{self.params!r} matches",
                hint='params="*.query.weight" matches paths like file names',
            )
        return result

    def _adapted(self, builder: Builder, owner: str, name: str, weight: Value) -> Value:
        suffix = "" if name == "weight" else f"_{name}"
        rows, columns, *kernel = weight.shape
        shapes: tuple[Any, Any] = ((rows, self.rank), (self.rank, columns))
        fans = None
        if kernel:  # laid out [out, in, *kernel]
            taps = math.prod(kernel)
            shapes = (self.rank, columns, *kernel), (rows, self.rank, *(1,) * len(kernel))
            fans = columns * taps, self.rank * taps
        factors = {"a": (shapes[0], self.init, fans), "b": (shapes[1], zeros, None)}
        a, b = (
            builder.parameter(owner, f"lora_{letter}{suffix}", shape, init, weight.dtype, spread)
            for letter, (shape, init, spread) in factors.items()
        )
        factor = 1.0 if self.alpha is None else self.alpha / self.rank
        if kernel:  # one convolution after the other is one, of the product of their weights
            filters = reshape(a * factor, (self.rank, columns * math.prod(kernel)))
            product = reshape(b, (rows, self.rank)) @ filters
            return weight + reshape(product, weight.shape)
        # The factor on the smaller of the two: B is as wide as the layer.
        return weight + (a * factor) @ b


@suggests_names
def lora(
    layer: Callable[..., Any],
    rank: int = 4,
    alpha: float | None = None,
    params: str | Sequence[str] = "*",
) -> LoRA:
    """The layer with low-rank adaptation: see `LoRA`."""
    return LoRA(layer, rank, alpha, params)


__all__ = [
    "LoRA",
    "lora",
]
