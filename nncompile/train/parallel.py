"""What a trainer asks of the processes that it trains together with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from nncompile.compiler.compile import CompiledStep
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import StepRunner
from nncompile.train.events import Callback


class Parallel(Protocol):
    """Several processes; see `nncompile.parallel.processes.Processes`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def runner(
        self,
        compiled: CompiledStep,
        state: Mapping[str, Any],
        providers: Provider | Sequence[Provider],
        threads: int | None,
        after: StepRunner | None,
        native: bool | None,
        in_place: bool,
    ) -> StepRunner: ...
    def callbacks(self, callbacks: list[Callback]) -> list[Callback]: ...
    def said(self, value: Any) -> list[Any]: ...
    def together(self) -> AbstractContextManager[None]: ...


def told_here(parallel: Parallel | None, callbacks: list[Callback]) -> list[Callback]:
    """The callbacks that this process tells: all of them where it is alone."""
    return callbacks if parallel is None else parallel.callbacks(callbacks)


def together(parallel: Parallel | None) -> AbstractContextManager[None]:
    """A block that all processes leave together."""
    return nullcontext() if parallel is None else parallel.together()
