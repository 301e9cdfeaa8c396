"""The page itself: one file of HTML, without scripts of others, in light and dark."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from nncompile.graphics.svg import shortened
from nncompile.ir.types import Array

_NAME = 16  # characters of a class that are shown

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f7f8fa;--ink:#1f2430;--soft:#5b6472;
--rule:#dfe3e8;--c0:#2f6fce;--c1:#d9762b;--c2:#2e9a5b;--c3:#b0408a;--c4:#7a5bd0;--c5:#8c7a1e}
@media (prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1c2027;--ink:#e6e9ef;
--soft:#a4adbb;--rule:#343a44;--c0:#6ea6f5;--c1:#f0a163;--c2:#62c78c;--c3:#e07dbd;--c4:#a78ff0;--c5:#cdbb5b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1160px;padding:28px 24px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,'DejaVu Sans',sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 12px;padding-top:12px;
border-top:1px solid var(--rule)}
h3{font-size:14px;margin:0 0 6px;color:var(--soft);font-weight:600}
p.soft,.soft{color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0}
.fact{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 16px}
.fact b{display:block;font-size:20px}.fact span{color:var(--soft);font-size:13px}
.row{display:flex;flex-wrap:wrap;gap:18px;align-items:flex-start}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px;
flex:0 1 auto;min-width:0;overflow-x:auto}
svg.chart{width:min(460px,82vw);display:block;font:11px system-ui,'DejaVu Sans',sans-serif}
svg.chart text{fill:var(--soft)}svg.chart .g{stroke:var(--rule);fill:none}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
table.time td,table.time th{white-space:nowrap}
table.time td:last-child{white-space:normal;font:12px ui-monospace,monospace}
td,th{padding:3px 10px;border-bottom:1px solid var(--rule);vertical-align:middle;text-align:left}
caption{text-align:left;color:var(--soft);padding-bottom:4px}
table.heat td,table.heat thead th{text-align:center}table.heat td{min-width:38px;
background:color-mix(in srgb,var(--c0) calc(var(--p)*85%),transparent)}
table.heat td.wrong{background:color-mix(in srgb,var(--c1) calc(var(--p)*85%),transparent)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font-size:13px}
img.small{image-rendering:pixelated;height:56px;border:1px solid var(--rule);background:#fff}
"""


def page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """A whole page of sections, which are HTML."""
    head = f"<meta charset='utf-8'><title>{escape(title)}</title>"
    view = "<meta name='viewport' content='width=device-width,initial-scale=1'>"
    # Nothing is fetched, whatever a name says.
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    guard = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    heading = f"<h1>{escape(title)}</h1><p class='soft'>{escape(subtitle)}</p>"
    body = "\n".join([heading, *filter(None, sections)])
    return (
        f"<!DOCTYPE html>\n<html lang='en'>\n<head>{head}{guard}{view}"
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def section(title: str, *parts: str, note: str = "") -> str:
    """A heading and what stands below it, side by side; nothing where there is none."""
    inner = "".join(filter(None, parts))
    paragraph = f"<p class='soft'>{escape(note)}</p>" if note else ""
    return f"<h2>{escape(title)}</h2>{paragraph}<div class='row'>{inner}</div>" if inner else ""


def card(title: str, inner: str) -> str:
    """A frame with a title; nothing around nothing."""
    return f"<div class='card'><h3>{escape(title)}</h3>{inner}</div>" if inner else ""


def facts(numbers: Mapping[str, str]) -> str:
    """Numbers, large, each with what it is."""
    several = (
        f"<div class='fact'><b>{escape(x)}</b><span>{escape(name)}</span></div>"
        for name, x in numbers.items()
    )
    return f"<div class='facts'>{''.join(several)}</div>"


def heat_table(table: Array, names: Sequence[str]) -> str:
    """A confusion matrix of classes of these names: each row shaded by its shares, the diagonal in
    another color."""
    count = len(table)
    sums = table.sum(1)
    labels = [escape(shortened(name, _NAME)) for name in names]
    head = "".join(f"<th>{label}</th>" for label in labels)
    rows = []
    for i in range(count):
        cells = []
        for j in range(count):
            share = table[i, j] / sums[i] if sums[i] else 0.0
            kind = "" if i == j else " class='wrong'"
            text = f"{table[i, j]:,}" if table[i, j] else ""
            cells.append(f"<td{kind} style='--p:{share:.3f}'>{text}</td>")
        rows.append(f"<tr><th>{labels[i]}</th>{''.join(cells)}</tr>")
    caption = "<caption>rows: true class; columns: predicted</caption>"
    return (
        f"<table class='heat'>{caption}<thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def shown(x: Array) -> str:
    """One example of an input as HTML: a picture where it has the shape of one, or its numbers or
    words."""
    plane = x[0] if x.ndim == 3 and x.shape[0] in (1, 3) else x
    if x.dtype != object and plane.ndim == 2 and min(plane.shape) >= 4 and max(plane.shape) <= 128:
        return f"<img class='small' alt='' src='data:image/png;base64,{_png(plane)}'>"
    flat = x.reshape(-1)
    numbers = ", ".join(f"{n:.4g}" if flat.dtype.kind == "f" else str(n) for n in flat[:8])
    return escape(numbers + (", …" if flat.size > 8 else ""))


def _png(plane: Array) -> str:
    """A grey picture of numbers, the least black, in base64 (PNG, ISO/IEC 15948)."""
    numbers = np.nan_to_num(np.asarray(plane, np.float64))
    low, high = numbers.min(), numbers.max()
    grey = ((numbers - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in grey)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()
