"""Option names of other libraries: a call with one of them gets a hint with the name here."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

from nncompile.diagnostics.errors import (
    CompileError,
    FormulaError,
    ModelError,
    UnknownNameError,
    did_you_mean,
)
from nncompile.diagnostics.kinds import wrong_kind
from nncompile.diagnostics.locations import Location, current_scope, message_name

P = ParamSpec("P")
R = TypeVar("R")

# By their name, the names that options have here; a hint gives one that the function has.
FOREIGN_NAMES: dict[str, tuple[str, ...]] = {
    "T_0": ("period",),
    "T_max": ("steps",),
    "T_mult": ("growth",),
    "alpha": ("negative_slope",),
    "causal": ("is_causal",),
    "clip_grad_norm": ("clip_norm",),
    "clip_grad_norm_": ("clip_norm",),
    "clip_grad_value": ("clip_value",),
    "clip_grad_value_": ("clip_value",),
    "clipnorm": ("clip_each_norm",),
    "clipvalue": ("clip_value",),
    "decay_rate": ("gamma",),
    "decay_steps": ("step_size", "steps"),
    "depth": ("num_classes",),
    "dim": ("axis", "axes"),
    "dims": ("axis", "axes"),
    "end_factor": ("final",),
    "end_learning_rate": ("final",),
    "epsilon": ("eps",),
    "eta_min": ("final",),
    "filters": ("out_channels",),
    "global_clipnorm": ("clip_norm",),
    "grad_clip": ("clip_norm",),
    "gradient_clip_val": ("clip_norm",),
    "gradient_accumulation_steps": ("accumulate",),
    "groups": ("num_groups",),
    "initial_learning_rate": ("lr",),
    "input_dim": ("num_embeddings",),
    "interpolation": ("method",),
    "keepdim": ("keepdims",),
    "kernel_initializer": ("init",),
    "key_dim": ("head_dim",),
    "learning_rate": ("lr", "max_lr"),
    "loss": ("minimize",),
    "max_grad_norm": ("clip_norm",),
    "max_steps": ("steps",),
    "maxval": ("high",),
    "min_delta": ("threshold",),
    "min_lr": ("final",),
    "minval": ("low",),
    "n_epochs": ("epochs",),
    "nhead": ("num_heads",),
    "nonlinearity": ("activation",),
    "num_epochs": ("epochs",),
    "output_dim": ("embedding_dim",),
    "pool_size": ("kernel_size",),
    "random_state": ("seed",),
    "rate": ("p",),
    "rho": ("alpha",),
    "start_factor": ("start",),
    "stddev": ("std",),
    "strides": ("stride",),
    "total_iters": ("steps",),
    "total_steps": ("steps",),
    "unitriangular": ("unit_diagonal",),
    "units": ("out_features", "hidden_size"),
    "use_bias": ("bias",),
    "warmup_steps": ("warmup", "steps"),
}

_OF_X = (
    "d_model",
    "in1_features",
    "in2_features",
    "in_channels",
    "in_features",
    "input_dim",
    "input_shape",
    "input_size",
    "normalized_shape",
    "num_channels",
    "num_features",
)

# Options that nothing here has, and what replaces them.
EXPLANATIONS: dict[str, str] = {
    **dict.fromkeys(_OF_X, "it follows from x, to which the layer is applied: leave it out"),
    "batch_first": "data are always [batch, time, …]: leave it out",
    **dict.fromkeys(
        ("beta1", "beta2", "beta_1", "beta_2"), "both in one option: betas=(0.9, 0.999)"
    ),
    "callbacks": "pass them to trainer.fit(data, callbacks=[...])",
    "last_epoch": "a schedule is a function of the step, which checkpoints hold: leave it out",
    **dict.fromkeys(("max_eval", "max_iter"), "one step is one iteration: fit(data, steps=20)"),
    "include_last_offset": "the last bag ends with the data: offsets[:-1]",
    "learning_rate": "the optimizer has it: optimizer=adam(1e-3)",
    "lr": "the optimizer has it: optimizer=adam(1e-3)",
    "maximize": 'the recipe says so: training(model, updates=[maximize("reward", optimizer=...)])',
    "metrics": 'metrics are outputs of the model: {"loss": loss, "accuracy": accuracy(...)}',
    "right": "side='right' is after equal elements, side='left' before them",
    **dict.fromkeys(("num_parameters", "shared_axes"), "axis=1 has one slope for each channel"),
    "upper": "lower=False is the upper triangle, lower=True the other one",
    "validation_data": "pass them to trainer.fit(data, validation_data=...)",
    "verbose": "pass it to trainer.fit(data, verbose=...)",
}


def suggests_names(function: Callable[P, R], label: str | None = None) -> Callable[P, R]:
    """The function, with a `ModelError` for a wrong call: one that lists its options for a wrong
    name, and one that says what an argument may be where Python's own error comes from one of
    another kind than its annotation says. Messages call the function `label` where that is not its
    name.
    """

    @functools.wraps(function)
    @message_name()
    def wrapper(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except CompileError:
            raise
        except PYTHONS:
            mistake = explained(function, label or function.__name__, args, options)
            if mistake is None:
                raise  # from within
            raise mistake from None

    return wrapper


_LONGEST = 30  # characters of a value that a hint repeats

# What Python raises for an argument of another kind than the function expects.
PYTHONS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


@message_name()
def explained(
    function: Callable[..., Any],
    label: str,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
) -> ModelError | None:
    """The error for a call that does not fit the function; None where it does."""
    signature = inspect.signature(function)  # which takes too long to read before it is needed
    try:
        signature.bind(*args, **options)
    except TypeError as problem:
        names = tuple(name for name in signature.parameters if name != "self")
        return wrong_call(label, problem, names, options, _by_name(signature, args))
    wrong = wrong_kind(function, args, options)
    if wrong is None:
        return None
    name, problem_of_it, hint = wrong
    return ModelError(f"{label}: {name} {problem_of_it}", hint=hint)


def suggests_options(cls: type[R]) -> type[R]:
    """The class, with a `ModelError` for a wrong call that lists its options."""
    cls.__init__ = suggests_names(cls.__init__, cls.__name__)  # type: ignore[method-assign]  # of this class only
    return cls


@message_name()
def wrong_call(
    label: str,
    error: TypeError,
    names: Collection[str],
    options: Collection[str],
    by_name: str | None = None,
) -> ModelError:
    """The error for a call of `label` that does not fit its options `names`; `by_name` writes the
    positional arguments of the call as keywords."""
    unknown = next((name for name in options if name not in names), None)
    if unknown is None:
        hint = f"pass it by name: {label}({by_name})" if by_name else _listed(names)
        return ModelError(f"{label}: {error}", hint=hint)
    message = f"{label}: got an unexpected keyword argument {unknown!r}"
    return ModelError(message, hint=foreign_name(unknown, names))


def _by_name(signature: inspect.Signature, args: Sequence[object]) -> str | None:
    """The call `args` with keywords for those past the positional parameters; None where there are
    none, or too many. What is long to write is shown by the name of its parameter."""
    kinds = signature.parameters.values()
    positional = [p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword_only = [p.name for p in kinds if p.kind is p.KEYWORD_ONLY]
    extra = args[len(positional) :]
    if not extra or len(extra) > len(keyword_only):
        return None
    first = [(n, x) for n, x in zip(positional, args, strict=False) if n != "self"]
    options = [(f"{n}=", x) for n, x in zip(keyword_only, extra, strict=False)]
    shown = [_written(x, name) for name, x in first]
    return ", ".join([*shown, *(name + _written(x, "…") for name, x in options)])


def _written(x: object, otherwise: str) -> str:
    """A number or a word as it is written, and `otherwise` for anything longer."""
    text = repr(x)
    return text if len(text) <= _LONGEST else otherwise


def foreign_name(unknown: str, names: Collection[str]) -> str | None:
    """A hint for the option of another library: its name among `names`, or what replaces it."""
    own_name = next((name for name in FOREIGN_NAMES.get(unknown, ()) if name in names), None)
    if own_name is not None:
        return f"it is called {own_name!r} here: {own_name}=..."
    return EXPLANATIONS.get(unknown) or did_you_mean(unknown, names, _listed(names))


def _listed(names: Collection[str]) -> str:
    return f"its options are {', '.join(names)}"


class SuggestsNames:
    """A class that tells what the methods of another library are called: `foreign_names` says how
    the thing is done here, by the name there."""

    foreign_names: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            if hasattr(type(self), name):
                object.__getattribute__(self, name)  # a property: what went wrong within it
            label = type(self).__name__
            if name.startswith("_"):
                raise AttributeError(f"{label!r} object has no attribute {name!r}")
            names = [x for x in dir(type(self)) if not x.startswith("_")]
            hint = self.foreign_names.get(name) or did_you_mean(name, names)
            raise UnknownNameError(f"a {label.lower()} has no {name!r}", hint=hint)


def not_callable_error(error: TypeError) -> FormulaError | None:
    """The error to raise where `error` comes from calling something that is a function in numpy or
    torch, but not here: `x.size(0)`. None for another error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or "is not callable" not in str(error):
        return None
    code = trace.tb_frame.f_code
    line, last, start, end = next(
        itertools.islice(code.co_positions(), trace.tb_lasti // 2, None), (None,) * 4
    )
    if line is None or line != last or start is None or end is None:
        return None
    # Columns count bytes.
    text = linecache.getline(code.co_filename, line).encode()[start:end].decode()
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    name, owner = call.func.attr, ast.unparse(call.func.value)
    if name not in NOT_METHODS:
        return None
    argument = call.args[0] if call.args else None
    replacement = f"{owner}.{name}"
    if name in ("size", "shape"):
        index = "" if argument is None else f"[{ast.unparse(argument)}]"
        replacement = f"{owner}.shape{index}"
    return FormulaError(
        f"{owner}.{name} is {NOT_METHODS[name]}, not a method",
        hint=f"write {replacement}",
        location=Location(code.co_filename, line, current_scope()),
    )


# Attributes of values that are methods elsewhere.
NOT_METHODS = {
    "T": "a value",
    "dtype": "an element type",
    "ndim": "a number",
    "rank": "a number",
    "shape": "a tuple of sizes",
    "size": "the number of elements",
}
