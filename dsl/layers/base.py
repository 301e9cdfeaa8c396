"""`Layer`: a function of values that has parameters, declared where they are used."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, dataclass_transform

import numpy as np

from dsl.building import active
from dsl.initializers import Fans, glorot_uniform, zeros
from nncompile.diagnostics.errors import CompileError, ModelError
from nncompile.diagnostics.hints import PYTHONS, explained, suggests_names, wrong_call
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A subclass is a frozen dataclass by itself: its fields are its options, `__call__` its
    meaning, and two layers are equal only where they are one object. An option that is annotated
    as bool is True or False, or a `ModelError`.

    Called twice in one model, a layer object shares its weights, and draws random numbers of its
    own in each call. `name` is its part of their paths; by default it is the class in small
    letters, with a number where it is taken.

    >>> class Scale(Layer):
    ...     '''x·s, with one trained factor for each feature.'''
    ...     start: float = 1.0
    ...
    ...     def __call__(self, x):
    ...         return x * self.parameter("factor", x.shape[-1], init=self.start)
    >>> Scale(2.0, name="gain")
    Scale(start=2.0, name='gain')
    """

    name: str | None = field(default=None, kw_only=True)

    # How many options were given by their place, and not by name: where other libraries have
    # others in these places, layers look whether those are meant.
    _positional_count = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Without fields of its own it keeps the __init__ of the layer that it derives from, which
        # may be written by hand; of several layers that it joins it has the fields of all.
        bases = [base for base in cls.__bases__ if issubclass(base, Layer)]
        has_fields = bool(inspect.get_annotations(cls)) or len(bases) > 1 or bases == [Layer]
        dataclass(frozen=True, eq=False, repr=False, init=has_fields)(cls)
        if "__init__" in cls.__dict__:
            cls.__init__ = _with_known_options(cls.__init__)  # type: ignore[method-assign]  # checked
        if "__call__" in cls.__dict__:
            cls.__call__ = _within_its_scope(cls.__call__)  # type: ignore[method-assign]  # checked

    def __repr__(self) -> str:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["name"]  # which comes last
        if self.name is not None:
            fields["name"] = self.name
        return f"{type(self).__name__}({', '.join(f'{n}={x!r}' for n, x in fields.items())})"

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise ModelError(
            f"the layer {type(self).__name__} has no __call__",
            hint="def __call__(self, x): ... says what it computes",
        )

    def __rshift__(self, other: Any) -> NoReturn:
        raise ModelError(
            f"{type(self).__name__} is applied to a value, which comes first",
            hint="x >> layer; Sequential(layer, relu) makes one layer of several",
        )

    def parameter(
        self,
        name: str,
        shape: Any = (),
        init: Any = glorot_uniform,
        dtype: DType = f32,
        fans: Fans | None = None,
    ) -> Value:
        """The trained parameter of that name of this layer.

        `init` is an initializer, a number or an array; `fans` are given where the weights are not
        laid out `[..., in, out]`. Asked for again, it is the same parameter. Raises `ModelError`
        for a size that only the data tell, `ShapeError` where it was declared with another type.
        """
        builder = active(type(self).__name__)
        return builder.parameter(builder.path_of(self), name, shape, init, dtype, fans)

    def state(self, name: str, shape: Any = (), init: Any = zeros, dtype: DType = f32) -> Value:
        """The state of that name (a running mean, a counter), as it stands now: where this layer
        was called before in the model, after that call's update."""
        builder = active(type(self).__name__)
        return builder.state(builder.path_of(self), name, shape, init, dtype)

    def update(self, state: Value | str, new: Any) -> None:
        """Makes `new` the value of the state (what `self.state` gave, or its name) from here on,
        and its value after a training step. Raises `ModelError` where it is not a state of this
        layer, `ShapeError` or `DTypeError` where `new` has another type."""
        builder = active(type(self).__name__)
        builder.update(builder.path_of(self), state, new)


def _with_known_options(init: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` whose errors name the layer and the options that there are."""
    signature = inspect.signature(init)
    defaults = {
        name: p.default
        for name, p in signature.parameters.items()
        if name == "init" or name.endswith("_init")
    }

    @functools.wraps(init)
    def __init__(self: Layer, *args: Any, **options: Any) -> None:
        try:
            bound = signature.bind(self, *args, **options)
        except TypeError as error:
            label, names = type(self).__name__, [n for n in signature.parameters if n != "self"]
            for name in options:
                if name not in names and name in vars(type(self)):
                    raise ModelError(
                        f"{label}: {name} is not an option, because it has no annotation",
                        hint=f"{name}: {type(getattr(self, name)).__name__} = ...",
                    ) from None
            raise wrong_call(label, error, names, options) from None
        for name in defaults.keys() & bound.arguments.keys():
            if bound.arguments[name] is None:  # means the default
                bound.arguments[name] = defaults[name]
        object.__setattr__(self, "_positional_count", len(args))
        _initialize(self, init, bound)

    return __init__


def _initialize(layer: Layer, init: Callable[..., None], bound: inspect.BoundArguments) -> None:
    try:
        init(*bound.args, **bound.kwargs)
        _check_flags(layer)
    except CompileError:
        raise
    except dataclasses.FrozenInstanceError as error:
        raise ModelError(
            f"{type(layer).__name__}: {error}: the options of a layer are its annotated fields",
            hint="width: int = 3 in the class, in place of __init__; what follows from options is "
            "computed in __call__",
        ) from None
    except PYTHONS:
        mistake = explained(init, type(layer).__name__, bound.args, bound.kwargs)
        if mistake is None:
            raise  # from within
        raise mistake from None


def _check_flags(layer: Layer) -> None:
    for option in layer.__dataclass_fields__.values():
        flag = getattr(layer, option.name, False)
        if option.type in (bool, "bool") and not isinstance(flag, bool | np.bool_):
            raise ModelError(
                f"{option.name} of {type(layer).__name__} must be True or False, got {flag!r}"
            )


def _mistake_of(
    layer: Layer, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> ModelError | None:
    """The error for what the layer is called with, or for an option that it was made with."""
    label = type(layer).__name__
    fields = layer.__dataclass_fields__.items()
    made_with = {name: getattr(layer, name) for name, field in fields if field.init}
    return explained(call, label, (layer, *args), options) or explained(
        type(layer).__init__, label, (layer,), made_with
    )


def _within_its_scope(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def __call__(self: Layer, *args: Any, **options: Any) -> Any:
        with active(type(self).__name__).calling(self):
            try:
                return call(self, *args, **options)
            except CompileError:
                raise
            except PYTHONS:
                mistake = _mistake_of(self, call, args, options)
                if mistake is None:
                    raise  # from within
                raise mistake from None

    return __call__


@suggests_names
def parameter(
    name: str,
    shape: Any = (),
    init: Any = glorot_uniform,
    dtype: DType = f32,
    fans: Fans | None = None,
) -> Value:
    """The trained parameter of that name of the model, or of the layer that is being called.

    Options and errors are those of `Layer.parameter`.
    """
    builder = active(f"parameter {name}")
    return builder.parameter(builder.path, name, shape, init, dtype, fans)


@suggests_names
def state(name: str, shape: Any = (), init: Any = zeros, dtype: DType = f32) -> Value:
    """The state of that name of the model, or of the layer that is being called, as it stands."""
    builder = active(f"state {name}")
    return builder.state(builder.path, name, shape, init, dtype)


@suggests_names
def update(state: Value | str, new: Any) -> None:
    """Makes `new` the value of that state of the model, or of the layer that is being called."""
    builder = active("update")
    builder.update(builder.path, state, new)


__all__ = [
    "Layer",
    "parameter",
    "state",
    "update",
]
