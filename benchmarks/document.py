"""The file of a run: its rows as JSON, to be added to by further runs and compared with later."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from benchmarks.figures import Figure
from benchmarks.rows import Row, SideResult
from benchmarks.workloads import Targets

Document = dict[str, Any]


def as_json(row: Row) -> dict[str, Any]:
    """A row, with what follows from its figures for those who read the file alone."""
    ratios = ("ratio", "native_ratio", "processor_ratio", "native_processor_ratio")
    names = ("key", "best", *ratios, "is_busy", "noise", "is_short")
    return dataclasses.asdict(row) | {name: getattr(row, name) for name in names}


def as_row(kept: dict[str, Any]) -> Row:
    """The row that was written so."""
    fields = {f.name: kept[f.name] for f in dataclasses.fields(Row)}
    fields["sides"] = {
        name: SideResult(**{**side, "quartiles": tuple(side["quartiles"])})
        for name, side in kept["sides"].items()
    }
    fields["targets"] = Targets(**kept["targets"])
    return Row(**fields)


def rows_of(document: Document) -> list[Row]:
    """Its rows of training and inference."""
    return [as_row(kept) for kept in document.get("rows", [])]


def figures_of(document: Document) -> list[Figure]:
    """Its rows of one figure a side."""
    names = {f.name for f in dataclasses.fields(Figure)}
    return [
        Figure(**{name: value for name, value in kept.items() if name in names})
        for kept in document.get("figures", [])
    ]


def figure_as_json(figure: Figure) -> dict[str, Any]:
    """A figure, with what follows from it."""
    derived = {"key": figure.key, "best": figure.best, "ratio": figure.ratio}
    return dataclasses.asdict(figure) | derived | {"is_short": figure.is_short}


def read(file: Path) -> Document:
    """Raises `typer.BadParameter` for a file that is none of ours."""
    try:
        document = json.loads(file.read_text("utf-8"))
        rows_of(document), figures_of(document)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise typer.BadParameter(f"{file} is not what --json writes") from None
    return document  # type: ignore[no-any-return]


def write(file: Path, document: Document) -> None:
    """As JSON."""
    file.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def joined(old: Document, new: Document) -> Document:
    """Both runs in one: rows that were measured again take the place of the older ones."""
    parts = [name for name, value in {**old, **new}.items() if isinstance(value, list)]
    both = {**old, **new}
    for part in parts:
        found = {_key(row): row for row in (*old.get(part, []), *new.get(part, []))}
        both[part] = list(found.values())
    return both


def _key(row: dict[str, Any]) -> str:
    """What two runs have in common of a row: all that is no figure."""
    if "key" in row:
        return str(row["key"])
    names = ("part", "family", "side", "workload", "source", "data", "file", "layers")
    return " ".join(str(row[name]) for name in names if name in row)


def plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses as JSON has them."""
    return [dataclasses.asdict(row) for row in rows]
