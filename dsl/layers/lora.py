"""Low-rank adaptation: a trained model learns something new by few further weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from dsl.building import Builder, active
from dsl.initializers import VarianceScaling, zeros
from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.options import real
from nncompile.ir.graph import Input
from nncompile.ir.names import matches
from nncompile.ir.op import Value
from nncompile.program.adaptation import with_low_rank
from nncompile.program.low_rank import Layout, LowRank, factor_names, is_factor
from nncompile.program.model import Model

M = TypeVar("M", bound=Model)

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
            if is_factor(path) or weight.rank < 2 or not matches(path, self.params):
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
        path = f"{owner}.{name}" if owner else name
        alpha = float(self.rank) if self.alpha is None else self.alpha
        layout: Layout = "in out" if weight.rank == 2 else "kernel"  # laid out [out, in, *kernel]
        change = LowRank(path, self.rank, alpha, layout, *factor_names(path))
        a, b = (
            builder.parameter(*_split(factor), shape, init, weight.dtype, change.fans(weight.shape))
            for factor, shape, init in zip(
                (change.a, change.b), change.shapes(weight.shape), (self.init, zeros), strict=True
            )
        )
        builder.adapters[path] = change
        return change.changed(weight, a, b)


def _split(path: str) -> tuple[str, str]:
    owner, _, name = path.rpartition(".")
    return owner, name


@overload
def lora(
    layer: M, rank: int = 4, alpha: float | None = None, params: str | Sequence[str] = "*"
) -> M: ...
@overload
def lora(
    layer: Callable[..., Any],
    rank: int = 4,
    alpha: float | None = None,
    params: str | Sequence[str] = "*",
) -> LoRA: ...
@suggests_names
def lora(
    layer: Any, rank: int = 4, alpha: float | None = None, params: str | Sequence[str] = "*"
) -> Any:
    """The layer, or the model, with low-rank adaptation: see `LoRA`.

    Of a model, any one, also one that was loaded from a file, it is the same model with the factors
    `lora_a` and `lora_b` beside its trained matrices and kernels, those of which `params` matches
    the paths. All that it had before is frozen unless `training(..., freeze=...)` says otherwise,
    and so it is where it is called in another model. `merge` makes a model without factors of it
    again, and `export(trainer, "adapter.safetensors")` writes them to a file of their own, which
    `load_lora` reads.
    """
    if isinstance(layer, Model):
        return with_low_rank(layer, rank, alpha, params)
    return LoRA(layer, rank, alpha, params)


__all__ = [
    "LoRA",
    "lora",
]
