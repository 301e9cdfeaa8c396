"""What a training does to data that somebody may want to know: said once, in one line."""

from __future__ import annotations

from nncompile.diagnostics.errors import warn


class DataNote(UserWarning):
    """What is made of data that do not have the form a model declares; nothing is wrong.

    `warnings.simplefilter("ignore", nncompile.train.DataNote)` silences all of them.
    """


class Notes:
    """Tells each thing once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, message: str) -> None:
        """Warns of it, the first time."""
        if message not in self._told:
            self._told.add(message)
            warn(message, DataNote)
