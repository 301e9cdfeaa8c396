"""The predictions beside their targets, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.tables import html_table
from nncompile.graphics.charts import bar_chart, scatter_chart
from nncompile.ir.types import Array
from nncompile.report.page import card, heat_table, section, shown
from nncompile.report.predictions import Compared
from nncompile.train.figures import number

_SAMPLES = 12  # predictions that are shown
_CLASSES = 30  # of a confusion matrix or a table that is shown
_BEFORE = 40  # characters of a text before what is predicted
_ASCII = range(128, 257)  # classes of a model that predicts bytes, or ASCII alone


@dataclass(frozen=True)
class Names:
    """What classes are called: by the names that are listed or those of a vocabulary, as characters
    where the classes are bytes of text, or else by numbers."""

    listed: Sequence[str] = ()
    are_characters: bool = False

    @classmethod
    def of(cls, comparison: Compared, class_names: Sequence[str] | None) -> Names:
        """The names of the classes that are compared. Raises `ModelError` where `class_names` has
        another number of names than there are classes."""
        if class_names is not None:
            if len(class_names) != comparison.count:
                raise ModelError(
                    f"class_names are {len(class_names)} names, and {comparison.output!r} has "
                    f"{comparison.count} classes"
                )
            return cls(tuple(map(str, class_names)))
        if comparison.class_names is not None:
            return cls(comparison.class_names)
        if comparison.kind != "tokens" or comparison.count not in _ASCII:
            return cls()
        codes = comparison.true
        is_text = ((codes >= 32) & (codes < 127)) | np.isin(codes, (9, 10, 13))
        return cls(are_characters=bool(is_text.mean() > 0.95))

    def __getitem__(self, i: int) -> str:
        if self.listed:
            return self.listed[i]
        return repr(chr(i))[1:-1] if self.are_characters and 0 <= i < 256 else str(i)

    def text(self, codes: Array) -> str:
        """The end of a sequence, as far as it is shown."""
        single = self.are_characters or (self.listed and max(map(len, self.listed)) == 1)
        last = codes[-_BEFORE:] if single else codes[-_BEFORE // 4 :]
        count = len(self.listed) or math.inf
        pieces = [self[i] if 0 <= i < count else "?" for i in last.tolist()]
        start = "…" if len(last) < len(codes) else ""
        return start + ("" if single else " ").join(pieces)


def predictions(comparison: Compared | None, class_names: Sequence[str] | None) -> Iterator[str]:
    """How predictions compare with targets, and the most wrong of them."""
    if comparison is None:
        return
    if comparison.count is None:
        yield from _of_numbers(comparison)
        return
    names = Names.of(comparison, class_names)
    right = float((comparison.predicted == comparison.true).mean())
    what = "places" if comparison.kind == "tokens" else "examples"
    pair = f"{comparison.output} beside {comparison.target}"
    note = f"{pair}, of {len(comparison.true):,} {what}, {right:.1%} right"
    matrix = ""
    if comparison.count <= _CLASSES:
        labels = [names[i] for i in range(comparison.count)]
        matrix = heat_table(comparison.confusion, labels)
    by_class = card("by class", html_table(_by_class(comparison.confusion, names), range(1, 4)))
    title = "Confusion matrix" if matrix else "Classes"
    if comparison.kind == "tokens":
        yield section("Sample predictions", card("", _continuations(comparison, names)), note=note)
        yield section(title, card("", matrix), by_class)
    else:
        yield section(title, card("", matrix), by_class, note=note)
        is_wrong = (comparison.predicted != comparison.true).any()
        title = "Most wrong" if is_wrong else "Least sure"
        yield section(title, card("", _most_wrong(comparison, names)))


def _of_numbers(comparison: Compared) -> Iterator[str]:
    note = f"{comparison.output} beside {comparison.target}, of {len(comparison.true):,} examples"
    predicted, true = comparison.predicted.reshape(-1), comparison.true.reshape(-1)
    residuals = predicted - true
    residuals = residuals[np.isfinite(residuals)]
    counts, edges = np.histogram(residuals, 30) if residuals.size else ((), ())
    spread = float(np.sqrt(np.mean(residuals**2))) if residuals.size else math.nan
    pairs = true.tolist(), predicted.tolist()
    yield section(
        "Residuals",
        card(
            f"{comparison.output} over {comparison.target}", scatter_chart(pairs, comparison.target)
        ),
        card(
            f"{comparison.output} − {comparison.target}",
            bar_chart(list(edges), list(counts), "difference"),
        ),
        note=f"{note}; root mean square {number(spread)}",
    )
    yield section("Most wrong", card("", _most_wrong(comparison, Names())))


def _by_class(table: Array, names: Names) -> list[tuple[str, ...]]:
    """Precision and recall of the classes, or of those with the most examples."""
    true = table.sum(1)
    chosen = sorted(np.argsort(-true, kind="stable")[:_CLASSES].tolist())
    rows: list[tuple[str, ...]] = [("class", "examples", "precision", "recall")]
    for i in chosen:
        shares = [f"{table[i, i] / n:.3f}" if n else "–" for n in (table[:, i].sum(), true[i])]
        rows.append((names[i], f"{true[i]:,}", *shares))
    if len(table) > len(chosen):
        rows.append((f"and {len(table) - len(chosen)} more", f"{true.sum():,} in all", "", ""))
    return rows


def _most_wrong(comparison: Compared, names: Names) -> str:
    order = np.argsort(-np.nan_to_num(comparison.doubt, nan=np.inf), kind="stable")[:_SAMPLES]
    if comparison.count is not None and (comparison.true != comparison.predicted).any():
        order = order[comparison.true[order] != comparison.predicted[order]]
    # The target of a copy is shown as such.
    inputs = {
        n: x
        for n, x in comparison.inputs.items()
        if len(x) == len(comparison.true)
        and (comparison.kind != "copies" or n != comparison.target)
    }
    titles = (
        "example",
        *inputs,
        comparison.target,
        "predicted" if comparison.count else comparison.output,
    )
    rows = []
    for i in order:
        cells = [str(comparison.places[i][0]), *(shown(np.asarray(x[i])) for x in inputs.values())]
        for x in (comparison.true, comparison.predicted):
            is_class = comparison.count is not None
            cells.append(escape(names[int(x[i])]) if is_class else shown(np.asarray(x[i])))
        rows.append(cells)
    return _table(titles, rows)


def _continuations(comparison: Compared, names: Names) -> str:
    """Predictions at places that are spread over all of them."""
    chosen = np.linspace(0, len(comparison.true) - 1, _SAMPLES + 2).round().astype(int)[1:-1]
    titles = ["example", "place", "before" if comparison.context else "", "target", "predicted", ""]
    rows = []
    for i in dict.fromkeys(chosen.tolist()):
        before = names.text(comparison.context[i]) if comparison.context else ""
        sure = "" if comparison.probability is None else f"{comparison.probability[i]:.0%}"
        target, predicted = names[int(comparison.true[i])], names[int(comparison.predicted[i])]
        texts = [*map(str, comparison.places[i][:2]), before, target, predicted, sure]
        cells = [escape(text) for text in texts]
        cells[2:5] = [f"<code>{cell}</code>" for cell in cells[2:5]]
        rows.append(cells)
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells, which are HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
