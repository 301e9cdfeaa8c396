"""Writes the predictions of an exported model for a file of examples."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.shared import ProviderName, StrictDevice, out, print_files
from nncompile.cli.trained import check_run, declared_by
from nncompile.diagnostics.errors import FeedError, FileError
from nncompile.ir.types import Array
from nncompile.runtime import Session
from nncompile.runtime.providers import on_device
from nncompile.train.sources.arrays import rows_of
from nncompile.train.sources.blocks import blocks_of, named
from nncompile.train.sources.casting import cast_to
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.results import check_kind, write_blocks
from nncompile.train.sources.tables import Columns, is_table
from nncompile.train.sources.words import with_codes

_DROP = "--drop COLUMN leaves a column out, such as a target"


def predict(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL.onnx", help="A run directory, or an ONNX model.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            *("--data", "-d", "--input", "-i"),
            help="A .csv, .tsv, .parquet, .feather, .npy or .npz file.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .csv, .tsv, .parquet, .npy or .npz file.")
    ],
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to leave out (may be repeated)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples at a time.")] = 1024,
    provider: ProviderName = "cpu",
    strict_device: StrictDevice = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
) -> Outcome:
    """Write the predictions of a model for a file of examples.

    Columns and arrays are the inputs by name; an input of a row of numbers takes all columns of
    numbers that remain. The words of a vocabulary are encoded. Tables are read and written in
    batches: they may be larger than memory.

    \b
    Examples:
      nncompile predict model.onnx --data new.csv --output predictions.csv
      nncompile predict runs/digits/latest -d images.npy -o digits.npz --batch-size 256
    """
    check_kind(output)
    if target.suffix == ".py":
        raise FileError(
            f"{target} is a model file, which has no weights",
            hint=f"nncompile train {target}, then nncompile predict runs/MODEL/latest",
        )
    if data.resolve() == output.resolve():
        raise FileError(f"{output} is the file of the examples", hint="write another file")
    inputs: list[str] = []
    file = target
    if target.is_dir() or not (target.exists() or target.suffix):
        check_run(target)
        file = target / "model.onnx"
        inputs = list(declared_by(target).model.inputs)  # so that targets are no features
        if not file.is_file():
            raise FileError(f"the run {target} has no model.onnx: it did not end")
    session = Session(file, on_device(provider, strict_device), threads)
    predictions = Predictions(session, inputs, drop or [])
    start = time.perf_counter()
    with closing(predictions.of(data, batch_size)) as blocks:
        write_blocks(output, blocks)
    seconds = time.perf_counter() - start
    print_files(output)
    out.print(f"{predictions.count:,} examples in {seconds:.2f} s on {provider}")
    figures = {"examples": predictions.count, "seconds": seconds}
    return Outcome({**figures, "files": described_files([output])})


class Predictions:
    """The outputs of a model for the examples of a file, and their `count` so far."""

    def __init__(self, session: Session, inputs: list[str], drop: list[str]) -> None:
        self.session, self.drop = session, drop
        self.count = 0
        self._notes = Notes()
        ports = [port.name for port in session.inputs]
        self._targets = [name for name in inputs if name not in ports]  # of the model as trained
        names = [*inputs, *ports]
        self._columns = Columns(names, self._notes)
        self._codes = session.vocabularies
        self._fixed = _fixed_batch(session)

    def of(self, source: Path, size: int) -> Generator[dict[str, Array]]:
        """The outputs by name, block by block. Raises `FeedError` for data that do not fit, and for
        an output that has no row for each example. A model that takes a fixed number of examples
        gets as many, of which the last may be there several times."""
        with closing(blocks_of(source, self._fixed or size)) as blocks:
            for block in blocks:
                yield self._outputs(block)
        if not self.count:
            raise FileError(f"{source} has no examples")

    def _outputs(self, block: Any) -> dict[str, Array]:
        feeds = self._feeds(block)
        count = len(block) if is_table(block) else len(next(iter(block.values())))
        missing = 0 if self._fixed is None else self._fixed - count
        if missing > 0:
            self._notes.tell(
                f"the model takes {self._fixed} examples at a time: the last {count} are predicted "
                f"beside {missing} more of the last one"
            )
            feeds = {n: np.concatenate([x, x[-1:].repeat(missing, 0)]) for n, x in feeds.items()}
        outputs = self.session.run(feeds)
        if missing > 0:
            outputs = {name: x[:count] for name, x in outputs.items()}
        for name, x in outputs.items():
            if not x.ndim or len(x) != count:
                raise FeedError(
                    f"output {name!r} has no row for each of the {count} examples",
                    rows=[(name, str(list(x.shape)))],
                    hint="nncompile run computes such outputs",
                )
        self.count += count
        return outputs

    def _feeds(self, block: Any) -> dict[str, Array]:
        ports = self.session.inputs
        if is_table(block):
            unknown = [name for name in self.drop if name not in block.columns]
            if unknown:
                raise FeedError(f"the table has no column {unknown[0]!r} to drop")
            table = with_codes(block.drop(columns=self.drop), self._codes)
            try:
                feeds: dict[str, Any] = dict(self._columns.feeds(table, ports))
            except FeedError as error:
                error.hint = error.hint if "did you mean" in (error.hint or "") else _DROP
                raise
        else:
            arrays = named(block, ports, self._codes)
            dropped = {*self.drop, *self._targets}
            feeds = {name: x for name, x in arrays.items() if name not in dropped}
        for port in ports:
            if port.name in feeds:
                rows = rows_of(port.name, feeds[port.name])
                array = np.asarray(rows[:])
                cast = cast_to(port, array, self._notes, literal=True)
                feeds[port.name] = array if cast is None else cast(array, self.count)
        return feeds


def _fixed_batch(session: Session) -> int | None:
    """The number of examples that a model takes, where that is fixed: what all of its inputs and
    outputs begin with."""
    first = {port.shape[0] if port.shape else None for port in (*session.inputs, *session.outputs)}
    (size,) = first if len(first) == 1 else (None,)
    return size if isinstance(size, int) and size > 0 else None
