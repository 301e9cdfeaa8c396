"""A training in a notebook: a table of epochs and a bar, which change while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from html import escape
from typing import Any

from nncompile.train.history import History
from nncompile.train.showing import Moment, Plan, View

_BETWEEN = 0.5  # seconds from one change to the next


def notebook() -> Any:
    """IPython's display module in a notebook; None elsewhere. IPython is not loaded for it: in a
    notebook it is."""
    ipython, display = sys.modules.get("IPython"), sys.modules.get("IPython.display")
    shell = ipython.get_ipython() if ipython is not None else None
    # Subclasses are those of hosted notebooks.
    kinds = {kind.__name__ for kind in type(shell).__mro__}
    return display if "ZMQInteractiveShell" in kinds else None


class LiveTable(View):
    """The last epochs as a table, and below it a bar with the metrics of the last step."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._history = History()
        self._shown = 0.0
        self._moment: Moment | None = None

    def start(self, plan: Plan) -> None:
        self._handle = self._display.display(self, display_id=True)

    def moment(self, moment: Moment) -> None:
        self._moment = moment
        self._show()

    def epoch(self, number: int, made: int, metrics: Mapping[str, Any]) -> None:
        self._history.epochs.append(dict(metrics))
        self._show()

    def stop(self) -> None:
        self._moment = None
        self._show(at_once=True)

    def _show(self, at_once: bool = False) -> None:
        if at_once or time.perf_counter() - self._shown > _BETWEEN:
            self._shown = time.perf_counter()
            self._handle.update(self)

    def _repr_html_(self) -> str:
        table = self._history._repr_html_() if len(self._history) else ""
        moment = self._moment
        if moment is None:
            return table or "<p>training</p>"
        total = f' max="{moment.total}" value="{moment.made}"' if moment.total else ""
        text = f"epoch {moment.epoch}  step {moment.made:,}  {moment.pace}  {moment.figures}"
        return f"{table}<p><progress{total}></progress> {escape(text)}</p>"

    def __repr__(self) -> str:
        return self._moment.figures if self._moment else repr(self._history)
