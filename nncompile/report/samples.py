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
    """What classes are called: the names that are given, characters where the classes are bytes of
    text, or else numbers."""

    given: Sequence[str] = ()
    are_characters: bool = False

    @classmethod
    def of(cls, found: Compared, given: Sequence[str] | None) -> Names:
        """Those of what was found. Raises `ModelError` where they are another number of names than
        there are classes."""
        if given is not None:
            if len(given) != found.count:
                raise ModelError(
                    f"class_names are {len(given)} names, and {found.output!r} has "
                    f"{found.count} classes"
                )
            return cls(tuple(map(str, given)))
        if found.kind != "tokens" or found.count not in _ASCII:
            return cls()
        codes = found.true
        is_text = ((codes >= 32) & (codes < 127)) | np.isin(codes, (9, 10, 13))
        return cls(are_characters=bool(is_text.mean() > 0.95))

    def __getitem__(self, i: int) -> str:
        if self.given:
            return self.given[i]
        return repr(chr(i))[1:-1] if self.are_characters and 0 <= i < 256 else str(i)

    def text(self, codes: Array) -> str:
        """The end of a sequence, as far as it is shown."""
        single = self.are_characters or (self.given and max(map(len, self.given)) == 1)
        last = codes[-_BEFORE:] if single else codes[-_BEFORE // 4 :]
        count = len(self.given) or math.inf
        pieces = [self[i] if 0 <= i < count else "?" for i in last.tolist()]
        start = "…" if len(last) < len(codes) else ""
        return start + ("" if single else " ").join(pieces)


def predictions(found: Compared | None, class_names: Sequence[str] | None) -> Iterator[str]:
    """How predictions compare with targets, and the most wrong of them."""
    if found is None:
        return
    if found.count is None:
        yield from _of_numbers(found)
        return
    names = Names.of(found, class_names)
    right = float((found.predicted == found.true).mean())
    what = "places" if found.kind == "tokens" else "examples"
    note = f"{found.output} beside {found.target}, of {len(found.true):,} {what}, {right:.1%} right"
    matrix = ""
    if found.count <= _CLASSES:
        labels = [names[i] for i in range(found.count)]
        matrix = heat_table(found.confusion, labels)
    by_class = card("by class", html_table(_by_class(found.confusion, names), range(1, 4)))
    title = "Confusion matrix" if matrix else "Classes"
    if found.kind == "tokens":
        yield section("Sample predictions", card("", _continuations(found, names)), note=note)
        yield section(title, card("", matrix), by_class)
    else:
        yield section(title, card("", matrix), by_class, note=note)
        is_wrong = (found.predicted != found.true).any()
        title = "Most wrong" if is_wrong else "Least sure"
        yield section(title, card("", _most_wrong(found, names)))


def _of_numbers(found: Compared) -> Iterator[str]:
    note = f"{found.output} beside {found.target}, of {len(found.true):,} examples"
    predicted, true = found.predicted.reshape(-1), found.true.reshape(-1)
    residuals = predicted - true
    residuals = residuals[np.isfinite(residuals)]
    counts, edges = np.histogram(residuals, 30) if residuals.size else ((), ())
    spread = float(np.sqrt(np.mean(residuals**2))) if residuals.size else math.nan
    pairs = true.tolist(), predicted.tolist()
    yield section(
        "Residuals",
        card(f"{found.output} over {found.target}", scatter_chart(pairs, found.target)),
        card(
            f"{found.output} − {found.target}", bar_chart(list(edges), list(counts), "difference")
        ),
        note=f"{note}; root mean square {number(spread)}",
    )
    yield section("Most wrong", card("", _most_wrong(found, Names())))


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


def _most_wrong(found: Compared, names: Names) -> str:
    order = np.argsort(-np.nan_to_num(found.doubt, nan=np.inf), kind="stable")[:_SAMPLES]
    if found.count is not None and (found.true != found.predicted).any():
        order = order[found.true[order] != found.predicted[order]]
    # The target of a copy is shown as such.
    inputs = {
        n: x
        for n, x in found.inputs.items()
        if len(x) == len(found.true) and (found.kind != "copies" or n != found.target)
    }
    titles = ("example", *inputs, found.target, "predicted" if found.count else found.output)
    rows = []
    for i in order:
        cells = [str(found.places[i][0]), *(shown(np.asarray(x[i])) for x in inputs.values())]
        for x in (found.true, found.predicted):
            is_class = found.count is not None
            cells.append(escape(names[int(x[i])]) if is_class else shown(np.asarray(x[i])))
        rows.append(cells)
    return _table(titles, rows)


def _continuations(found: Compared, names: Names) -> str:
    """Predictions at places that are spread over all of them."""
    chosen = np.linspace(0, len(found.true) - 1, _SAMPLES + 2).round().astype(int)[1:-1]
    titles = ["example", "place", "before" if found.context else "", "target", "predicted", ""]
    rows = []
    for i in dict.fromkeys(chosen.tolist()):
        before = names.text(found.context[i]) if found.context else ""
        sure = "" if found.probability is None else f"{found.probability[i]:.0%}"
        target, predicted = names[int(found.true[i])], names[int(found.predicted[i])]
        texts = [*map(str, found.places[i][:2]), before, target, predicted, sure]
        cells = [escape(text) for text in texts]
        cells[2:5] = [f"<code>{cell}</code>" for cell in cells[2:5]]
        rows.append(cells)
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells, which are HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
