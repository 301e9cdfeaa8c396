"""How a loss is declared: by the losses themselves, one an example, element or pair.

How they are reduced is the same for all, and declared here once: `reduction`, `weight`, `mask`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypedDict, overload

from dsl.losses.left_out import counted_alone
from dsl.losses.reduction import Reduction, matched, reduced
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import message_name
from nncompile.elementwise.formula import formula
from nncompile.ir.op import Value

P = ParamSpec("P")


class Reducing(TypedDict, total=False):
    """The options that all losses share: the last parameter of each, `**reducing`."""

    reduction: Reduction
    weight: Any
    mask: Any


class Counted(NamedTuple):
    """Losses, and what each of them counts in the divisor of a mean."""

    losses: Value
    counts: Value | None


Losses = Any
"""What the function under `@loss` gives: a value, or `Counted` ones."""

_EXPLAINED = """

    The result is the mean of all losses, their sum where `reduction` is "sum", or the losses
    themselves where it is "none". `weight` multiplies them, and those where the boolean `mask` is
    False do not count, whatever they are: both have the shape of the losses, or of its first axes.
    A weighted mean is Σ weight·loss / Σ weight."""

_SHARED = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
    for name, default, hint in (
        ("reduction", "mean", "Reduction"),
        ("weight", None, "Any"),
        ("mask", None, "Any"),
    )
)


@suggests_names
def loss(function: Callable[P, Losses]) -> Callable[P, Value]:
    """Makes a loss of a function that gives the losses themselves, and whose last parameter is
    `**reducing: Unpack[Reducing]`: the mean, the sum, or all of them, weighted and masked (see
    `reduced`), with the options in its signature and its docstring.

    Raises `ModelError` where that is missing.

    >>> @loss
    ... def absolute(prediction, target, **reducing):
    ...     '''|p − t|.'''
    ...     return abs(prediction - target)
    >>> inspect.signature(absolute)
    <Signature (prediction, target, *, reduction: 'Reduction' = 'mean', weight: 'Any' = None, \
mask: 'Any' = None) -> 'Value'>
    """
    signature = inspect.signature(function)
    *parameters, last = signature.parameters.values()
    if last.kind is not last.VAR_KEYWORD:
        names = ", ".join([*signature.parameters, "**reducing"])
        raise ModelError(
            f"the loss {function.__name__} does not take the options that all losses share",
            hint=f"def {function.__name__}({names}): ...",
        )
    signature = signature.replace(parameters=[*parameters, *_SHARED], return_annotation="Value")

    @functools.wraps(function)
    @message_name(function.__name__)
    def computed(*args: P.args, **options: P.kwargs) -> Value:
        # Bound, or a misspelt option would be one of `reducing`.
        bound: Any = _without_what_is_left_out(signature.bind(*args, **options))
        losses = function(*bound.args, **bound.kwargs)
        values, counts = losses if isinstance(losses, Counted) else (losses, None)
        chosen: Any = {p.name: options.get(p.name, p.default) for p in _SHARED}
        return reduced(values, **chosen, counts=counts)

    computed.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it
    computed.__doc__ = (function.__doc__ or "").rstrip() + _EXPLAINED
    return suggests_names(computed)


def _without_what_is_left_out(bound: inspect.BoundArguments) -> inspect.BoundArguments:
    """The call with the predictions, and what is compared with them, where the mask is true."""
    mask = bound.arguments.get("mask")
    if mask is None:
        return bound
    parameters = bound.signature.parameters
    axis = bound.arguments.get("axis", parameters["axis"].default if "axis" in parameters else None)
    first = next(iter(bound.arguments.values()))
    for name, x in bound.arguments.items():
        is_option = parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        if not is_option and getattr(x, "rank", None) == getattr(first, "rank", None):
            bound.arguments[name] = counted_alone(x, mask, axis)
    return bound


@overload
def pointwise(function: Callable[P, Any]) -> Callable[P, Value]: ...
@overload
def pointwise(
    *, derivative: Callable[..., Any]
) -> Callable[[Callable[P, Any]], Callable[P, Value]]: ...
@suggests_names
def pointwise(
    function: Callable[..., Any] | None = None, *, derivative: Callable[..., Any] | None = None
) -> Any:
    """Makes a loss of a formula of a number and its target, which have one shape (see `matched`),
    and of options; `derivative` declares it as that of `formula` does.

    >>> @pointwise
    ... def squared_hinge(prediction, target, margin=1.0, **reducing):
    ...     return relu(margin - prediction * target) ** 2
    """
    if function is None:
        return functools.partial(pointwise, derivative=derivative)
    name = function.__name__
    elementwise = formula(function, derivative=derivative)

    @functools.wraps(function)
    def losses(prediction: Any, target: Any, *args: Any, **options: Any) -> Value:
        formula_options = {
            option: x for option, x in options.items() if option not in Reducing.__annotations__
        }
        result: Value = elementwise(*matched(name, prediction, target), *args, **formula_options)
        return result

    return loss(losses)
