"""A training in a terminal: a bar, with lines of epochs above it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, Any

from nncompile.diagnostics.extras import extra
from nncompile.train.showing import Moment, Plan, View


class Bar(View):
    """A bar with the epoch, the steps made, metrics of the last one, and the time left; it goes
    when the training ends, and the lines stay."""

    def __init__(self, stream: IO[str]) -> None:
        # A terminal is slow to load, and most programs that train have none.
        hint = "pip install rich"
        progress = extra("rich.progress", "rich", "a progress bar", hint)
        console = extra("rich.console", "rich", "a progress bar", hint)
        column = extra("rich.table", "rich", "a progress bar", hint).Column

        def text(field: str, **layout: Any) -> Any:
            cell = f"{{task.fields[{field}]}}"
            layout = {"no_wrap": True, **layout}
            return progress.TextColumn(cell, markup=False, table_column=column(**layout))

        self._console = console.Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        self._progress = progress.Progress(
            *(text("epoch"), progress.BarColumn(bar_width=20), text("count"), text("pace")),
            # What is left of the line: in a narrow terminal they are cut.
            text("figures", ratio=1, overflow="ellipsis"),
            expand=True,
            console=self._console,
            transient=True,
            refresh_per_second=8,
            # What the program itself writes to a file is not to land in the terminal.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def start(self, plan: Plan) -> None:
        last_epoch = f"/{plan.first_epoch + plan.epochs}" if plan.epochs else ""
        self._last_epoch = last_epoch
        empty = {"epoch": "", "count": "", "pace": "", "figures": ""}
        self._task = self._progress.add_task("", total=plan.total, **empty)
        self._progress.start()

    def moment(self, moment: Moment) -> None:
        self._progress.update(
            self._task,
            completed=moment.made,
            total=moment.total,
            epoch=f"epoch {moment.epoch}{self._last_epoch}",
            count=f"{moment.made:,}" + (f"/{moment.total:,}" if moment.total else ""),
            pace=moment.pace,
            figures=moment.figures,
        )

    def epoch(self, number: int, made: int, metrics: Mapping[str, Any]) -> None:
        self._progress.update(self._task, completed=made)

    def line(self, text: str) -> None:
        self._console.print(text)

    def stop(self) -> None:
        self._progress.stop()
