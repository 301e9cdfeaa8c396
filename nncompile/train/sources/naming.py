"""Which input each part of some data is of: by names, or in the order of the model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, Row, did_you_mean
from nncompile.program.model import Model
from nncompile.program.weighted_losses import WEIGHTS
from nncompile.runtime.feeds import Port
from nncompile.train.sources.arrays import is_array, is_stored
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.tables import Columns, is_table, matrix
from nncompile.train.sources.words import encoded


class Naming:
    """Names the parts of data by the inputs of a model: one for a training, so that each table
    gives the columns that the first one gave."""

    def __init__(self, model: Model, notes: Notes) -> None:
        self.model = model
        self.columns = Columns(list(model.inputs), notes)

    def feeds(self, data: Any, y: Any, ports: Sequence[Port]) -> dict[str, Any]:
        """What `data` (and the targets `y`, where they are apart) give for the inputs, by name;
        more inputs than the `ports` may be named.

        A dict has the names, a table has them in its columns (see `Columns`), parts of a tuple or
        a list are in the order of the model's inputs, and an array is that of the only one. Where
        `y` is apart, `data` are the inputs that predictions need and `y` the others, in that order.
        Words of an input that has a vocabulary are their codes. Raises `FeedError` for what does
        not fit.
        """
        codes = self.model.vocabularies
        feeds = self._feeds(data, y, ports)
        return {name: encoded(x, codes.get(name)) for name, x in feeds.items()}

    def _feeds(self, data: Any, y: Any, ports: Sequence[Port]) -> dict[str, Any]:
        if y is None:
            return self._placed(data, self._ordered(ports, len(list(_parts(data)))), ports)
        given, targets = list(_parts(data)), list(_parts(y))
        names = list(self.model.inputs)
        needed = {n for output in self.model.predict for n in self.model.needs(output)}
        first = [n for n in names if n in needed]
        rest = [n for n in names if n not in needed]
        named = isinstance(data, Mapping) or is_table(data)
        if named and isinstance(data, Mapping):
            first = [n for n in names if n in data]
            rest = [n for n in names if n not in data]
        elif not named and (len(first) != len(given) or len(rest) < len(targets)):
            self._check_parts(len(given), len(targets), first, ports)
            first, rest = names[: len(given)], names[len(given) :]
        if not rest:
            raise FeedError(
                f"model {self.model.name} has no input left for y",
                rows=self.rows(),
                hint="data that name all inputs stand alone: fit(data)",
            )
        by_name = {port.name: port for port in ports}
        feeds = self._placed(data, first, [by_name[n] for n in first if n in by_name])
        return feeds | self._placed(y, rest, [by_name[n] for n in rest if n in by_name])

    def _check_parts(
        self, given: int, targets: int, needed: Sequence[str], ports: Sequence[Port]
    ) -> None:
        """Raises `FeedError` where there are fewer arrays than inputs."""
        names = [port.name for port in ports if port.name != WEIGHTS]
        if given + targets < len(names):
            raise FeedError(
                f"model {self.model.name} takes {_counted(len(names))}, got {given} beside "
                f"{targets} of targets",
                rows=self.rows(names),
                hint=f"predictions need {', '.join(needed)}: fit(({', '.join(needed)}), y)",
            )

    def _ordered(self, ports: Sequence[Port], count: int) -> list[str]:
        """The inputs that so many parts are of: those of the ports, or all of the model."""
        needed = [port.name for port in ports]
        names = [n for n in self.model.inputs if n in needed]
        if count > len(names) or (WEIGHTS in names and count < len(names)):
            return [n for n in self.model.inputs if count >= len(self.model.inputs) or n != WEIGHTS]
        return names

    def _placed(self, data: Any, names: Sequence[str], ports: Sequence[Port]) -> dict[str, Any]:
        """The parts of data by the names, in order."""
        if isinstance(data, Mapping):
            return {str(name): _whole(x) for name, x in data.items()}
        if is_table(data):
            return dict(self.columns.feeds(data, ports))
        feeds: dict[str, Any] = {}
        for part in _parts(data):
            if isinstance(part, Mapping) or is_table(part):
                remaining = [p for p in ports if p.name not in feeds]
                feeds |= self._placed(part, names, remaining)
                continue
            name = next((n for n in names if n not in feeds), None)
            if name is None:
                raise FeedError(
                    f"model {self.model.name} takes {_counted(len(names))} here, the data have "
                    f"{len(list(_parts(data)))}",
                    rows=self.rows(names),
                    hint="pass them by name: {" + ", ".join(f"{n!r}: …" for n in names) + "}",
                )
            feeds[name] = part
        return feeds

    def rows(self, names: Sequence[str] | None = None) -> list[Row]:
        """The inputs and their types, for messages."""
        chosen = self.model.inputs if names is None else names
        return [("input", n, str(self.model.inputs[n].type)) for n in chosen]

    def check_known(self, feeds: Mapping[str, Any]) -> None:
        """Raises `FeedError` for a name that is not an input of the model."""
        for name in feeds:
            if name not in self.model.inputs:
                raise FeedError(
                    f"model {self.model.name} has no input {name!r}",
                    rows=self.rows(),
                    hint=did_you_mean(name, self.model.inputs),
                )


def is_whole(data: Any) -> bool:
    """Whether data are those of all examples, and not an iterable of batches: a dict, a table, an
    array, or a tuple or list of arrays."""
    if isinstance(data, Mapping) or is_table(data) or is_array(data) or is_stored(data):
        return True
    if isinstance(data, tuple):
        return bool(data) and not _of_batches(data)
    return isinstance(data, list) and bool(data) and all(is_array(x) for x in data)


def is_numbers(data: Any) -> bool:
    """Whether data are a list of numbers, or of lists of them."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, bool | int | float | np.generic)


def _of_batches(data: tuple[Any, ...]) -> bool:
    """Whether a tuple holds batches: dicts, or pairs of arrays."""
    return len(data) > 0 and all(
        isinstance(x, Mapping) or (isinstance(x, tuple) and all(map(is_array, x))) for x in data
    )


def _parts(data: Any) -> Iterator[Any]:
    """The arrays, dicts and tables in tuples and lists."""
    if isinstance(data, tuple | list) and not is_numbers(data):
        for part in data:
            yield from _parts(part)
    elif data is not None:
        yield data


def _whole(x: Any) -> Any:
    """A table as the rows of one input."""
    return matrix(x) if is_table(x) else x


def _counted(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"
