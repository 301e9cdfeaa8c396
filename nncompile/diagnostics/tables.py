"""Rows of text as a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from nncompile.diagnostics.printable import printable


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """The rows with their cells aligned, in the columns numbered `right` to the right. Control
    characters, which names in files of others may have, are shown as escapes."""
    rows = [[printable(cell) for cell in row] for row in rows]
    count = max(map(len, rows), default=0)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]

    def aligned(row: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()

    return "\n".join(map(aligned, rows))


def html_table(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), header: int = 1, caption: str = ""
) -> str:
    """The rows as a table of HTML, of which the first `header` are titles; the columns numbered
    `right` are aligned to the right. All text is escaped, and spaces before it indent it."""

    def cell(text: str, column: int, tag: str) -> str:
        side = "right" if column in right else "left"
        indent = len(text) - len(text.lstrip(" "))
        padding = f";padding-left:{indent + 0.5}em" if indent and column not in right else ""
        return f'<{tag} style="text-align:{side}{padding}">{escape(text.strip())}</{tag}>'

    def line(row: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(cell(text, i, tag) for i, text in enumerate(row))}</tr>"

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(line(row, "th") for row in rows[:header])
    body = "".join(line(row, "td") for row in rows[header:])
    parts = [f"<thead>{head}</thead>" if head else "", f"<tbody>{body}</tbody>"]
    return f"<table>{title}{''.join(parts)}</table>"
