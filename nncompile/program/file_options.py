"""Options of a model file: hyper-parameters with a default, which are set from outside."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from types import FrameType, ModuleType
from typing import Any, TypeVar

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import user_frame
from nncompile.program.option_values import KINDS, FileOption, Scalar, typed, unknown_option

T = TypeVar("T", bound=Scalar | tuple[Scalar, ...])


class Settings:
    """The values that are given to a model file, and the options that it declares as it runs."""

    def __init__(
        self, module: ModuleType, source: str, values: Mapping[str, Any] | None = None
    ) -> None:
        self.options: dict[str, FileOption] = {}
        self._module, self._values = module, dict(values or {})
        self._source = source

    def declare(self, frame: FrameType, declared: FileOption) -> Any:
        """Takes note of an option that the file declares, and returns its value."""
        name = declared.name or self._assigned_name(frame)
        if name in self.options:
            raise ModelError(f"the file has two options {name!r}", hint="name=... names another")
        declared = replace(declared, name=name)
        if name in self._values:
            value = self._values[name]
            value = declared.parse(value) if isinstance(value, str) else declared.checked(value)
            declared = replace(declared, value=value)
        self.options[name] = declared
        return declared.value

    def is_of(self, frame: FrameType) -> bool:
        """Whether the frame is that of the file, and not of a module that it imports."""
        return frame.f_globals is self._module.__dict__

    def check_all_known(self, file: str) -> None:
        """Raises `ModelError` for a value of an option that the file does not have."""
        for name in self._values:
            if name not in self.options:
                raise unknown_option(file, name, self.options, str(self._values[name]))

    def _assigned_name(self, frame: FrameType) -> str:
        """The variable that the running call is assigned to."""
        place = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
        for node in ast.walk(ast.parse(self._source)):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                targets = node.targets
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            for target, value in _pairs(targets, getattr(node, "value", None)):
                lines = value.lineno, value.end_lineno, value.col_offset, value.end_col_offset
                if lines == place and isinstance(target, ast.Name):
                    return target.id
        raise ModelError(
            "an option is named by the variable that it is assigned to",
            hint='width = option(64), or option(64, name="width")',
        )


def _pairs(
    targets: Sequence[ast.expr], value: ast.expr | None
) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target of an assignment with its value."""
    if len(targets) != 1 or value is None:
        return
    (target,) = targets
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from zip(target.elts, value.elts, strict=False)
    else:
        yield target, value


_settings: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    """While the block runs the file, its options have those settings."""
    token = _settings.set(settings)
    try:
        yield
    finally:
        _settings.reset(token)


@suggests_names
def option(
    default: T,
    *,
    choices: Sequence[T] | None = None,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    help: str = "",
    name: str | None = None,
) -> T:
    """A hyper-parameter of a model file: `default`, or what `--set NAME=VALUE` says.

    The default gives the type: a number, a whole number, True or False, text, or a tuple of one of
    these. `choices`, or `low` and `high`, say what it may be; with `log`, a sweep draws from these
    bounds by ratio. It is called by the variable that it is assigned to, `width = option(64)`, or
    by `name`. Where the file runs as a program or is imported, it is the default.

    Raises `ModelError` for a value that it must not be, and where it is called in a function: an
    option has one value for all of the file.
    """
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise ModelError(f"the name of an option is like that of a variable, got {name!r}")
    if type(default) not in KINDS and not (
        isinstance(default, tuple) and default and type(default[0]) in KINDS
    ):
        raise ModelError(
            f"the default gives the type of an option, got {default!r}",
            hint="a number, text, True or False, or a tuple of one of these that is not empty",
        )
    label = name or "the default"
    allowed = None if choices is None else tuple(typed("a choice", x, default) for x in choices)
    _check_bounds(default, allowed, low, high, log)
    declared = FileOption(label, default, default, allowed, low, high, log, help)
    declared.checked(default)
    frame = user_frame()
    if frame is not None and frame.f_locals is not frame.f_globals:
        raise ModelError(
            "an option is declared at the top level of a file, not in a function",
            hint="assign it above the function: width = option(64)",
        )
    settings = _settings.get()
    if settings is None or frame is None or not settings.is_of(frame):
        return default
    value: T = settings.declare(frame, replace(declared, name=name or ""))
    return value


def _check_bounds(
    default: Any, choices: Any, low: float | None, high: float | None, log: bool
) -> None:
    first = default[0] if isinstance(default, tuple) else default
    if choices is not None and (low is not None or high is not None):
        raise ModelError("an option has choices, or low and high, not both")
    if choices is not None and not choices:
        raise ModelError("an option needs at least one choice, got none")
    if (low is not None or high is not None) and type(first) not in (int, float):
        raise ModelError(f"low and high are bounds of numbers, the default is {default!r}")
    if low is not None and high is not None and low > high:
        raise ModelError(f"low must not be above high, got {low} and {high}")
    if log and (low is None or high is None or low <= 0):
        raise ModelError("log needs low and high, both above 0", hint="low=1e-4, high=1e-1")
