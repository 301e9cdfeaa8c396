"""What options are called in other libraries: a call with such a name is told the one here."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn, ParamSpec, TypeVar

from nncompile.diagnostics.errors import FormulaError, ModelError, UnknownNameError, did_you_mean
from nncompile.diagnostics.locations import Location, current_scope, spoken

P = ParamSpec("P")
R = TypeVar("R")

# The names here, of which one that the function has is told.
FOREIGN_NAMES: dict[str, tuple[str, ...]] = {
    "T_0": ("period",),
    "T_max": ("steps",),
    "T_mult": ("growth",),
    "alpha": ("negative_slope",),
    "clipnorm": ("clip_norm",),
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

# What has no such option, because it is said elsewhere.
SAID: dict[str, str] = {
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
    "validation_split": "validation_data= takes separate data: split the arrays",
    "verbose": "callbacks=[...] print and log: LearningCurve(), CSVLog(path)",
}


def suggests_names(function: Callable[P, R], what: str | None = None) -> Callable[P, R]:
    """The function, whose wrong calls are a `ModelError` that says what its options are called;
    `what` it is called itself where that is not its name."""
    signature = inspect.signature(function)
    names = tuple(name for name in signature.parameters if name != "self")

    @functools.wraps(function)
    @spoken()
    def called(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError:
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                raise wrong_call(
                    what or function.__name__, error, names, options, _by_name(signature, args)
                ) from None
            raise  # from within

    return called


@spoken()
def wrong_call(
    what: str,
    error: TypeError,
    names: Collection[str],
    options: Collection[str],
    by_name: str | None = None,
) -> ModelError:
    """What to raise for a call of `what` that does not fit its options `names`; `by_name` is how
    those are given that the call gives by position."""
    unknown = next((name for name in options if name not in names), None)
    if unknown is None:
        hint = f"pass it by name: {what}({by_name})" if by_name else _listed(names)
        return ModelError(f"{what}: {error}", hint=hint)
    return ModelError(
        f"{what}: got an unexpected keyword argument {unknown!r}", hint=foreign_name(unknown, names)
    )


def _by_name(signature: inspect.Signature, args: Sequence[object]) -> str | None:
    """How those of `args` are given that have no position; None where there are none, or more."""
    kinds = signature.parameters.values()
    places = [p for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [p.name for p in kinds if p.kind is p.KEYWORD_ONLY]
    first, rest = args[: len(places)], args[len(places) :]
    if not rest or len(rest) > len(named):
        return None
    return ", ".join(
        [*map(repr, first), *(f"{n}={x!r}" for n, x in zip(named, rest, strict=False))]
    )


def foreign_name(unknown: str, names: Collection[str]) -> str | None:
    """What the option of another library is called among `names`, or where else it is said."""
    here = next((name for name in FOREIGN_NAMES.get(unknown, ()) if name in names), None)
    if here is not None:
        return f"it is called {here!r} here: {here}=..."
    return SAID.get(unknown) or did_you_mean(unknown, names, _listed(names))


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
            what = type(self).__name__
            if name.startswith("_"):
                raise AttributeError(f"{what!r} object has no attribute {name!r}")
            known = [x for x in dir(type(self)) if not x.startswith("_")]
            hint = self.foreign_names.get(name) or did_you_mean(name, known)
            raise UnknownNameError(f"a {what.lower()} has no {name!r}", hint=hint)


def called(error: TypeError) -> FormulaError | None:
    """What to raise where `error` comes of a call of something that is no function, but is one in
    numpy or torch: `x.size(0)`. None for another error."""
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
    name, of = call.func.attr, ast.unparse(call.func.value)
    if name not in CALLED:
        return None
    asked = call.args[0] if call.args else None
    way = f"{of}.{name}"
    if name in ("size", "shape"):
        way = f"{of}.shape" if asked is None else f"{of}.shape[{ast.unparse(asked)}]"
    return FormulaError(
        f"{of}.{name} is {CALLED[name]}, not a method",
        hint=f"write {way}",
        location=Location(code.co_filename, line, current_scope()),
    )


# Attributes of values that are methods elsewhere.
CALLED = {
    "T": "a value",
    "dtype": "an element type",
    "ndim": "a number",
    "rank": "a number",
    "shape": "a tuple of sizes",
    "size": "the number of elements",
}
