"""What a trainer asks of the processes that it trains together with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
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
    def together(self) -> AbstractContextManager[None]: ...
