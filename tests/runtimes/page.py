"""The table of docs/deploying.md, made of the results."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "docs" / "deploying.md"
BEGIN, END = "<!-- runtimes: python -m tests.runtimes -->\n", "<!-- end of runtimes -->\n"
LIMIT = 1e-3
"""The largest difference from onnxruntime that is rounding."""

# What an error says, and how the table says it.
_REASONS = (
    (r"Converter is not implemented .*operation_type='(\w+)'", r"no `\1`"),
    (r"op='(\w+)' is not supported", r"no `\1`"),
    (r"Scan is not implemented for other output input_direction", "no `Scan` backwards"),
    (r"(?:unsupported operations?|No conversion rule found for operations?)\W+(\w+)", r"no `\1`"),
    (r"Need at least 0 and at most 64 array objects", "`GatherElements` along more than 64"),
    (r"Conversion is failed for: (\w+)-", r"`\1` of values from outside"),
    (r"has the shape .* not|shape '.*' is invalid", "another shape"),
    (r"Conversion to \"12\"", "no uint32"),
    (r"'int' object has no attribute", "`Size` is no tensor"),
    (r"\"allowzero=1\"", "no `Reshape` with `allowzero`"),
    (r"KeyError.*(weight|Conv2D)'", "`Conv` of weights that are inputs"),
    (r"'str' object is not callable", "an output named `code`"),
    (r"zip\(\) argument", "fewer outputs"),
    (r"cannot convert float infinity", "products of uint32 beyond 2³²"),
    (r"^more than", "takes too long"),
    (r"^crash", "crashes"),
)


def results() -> dict[str, Any]:
    """What was found: the versions, and for each runtime and file a difference or an error."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return found


def reason(found: dict[str, Any]) -> str | None:
    """Why a file is not run as onnxruntime runs it; None where it is."""
    if "error" not in found:
        return None if found["difference"] <= LIMIT else "other numbers"
    for pattern, text in _REASONS:
        match = re.search(pattern, found["error"])
        if match:
            return match.expand(text)
    return re.sub(r"[|`]", "", found["error"]).partition(":")[0]


def table(found: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = [
        "| runtime | version | inference models | training steps | what the others meet |",
        "|---|---|---|---|---|",
    ]
    for runtime, version in found["versions"].items():
        if runtime == "onnxruntime":
            continue
        cases: dict[str, Any] = found["results"][runtime]
        why: Counter[str] = Counter()
        cells = []
        for kind in ("model", "step"):
            reasons = [reason(x) for name, x in cases.items() if name.endswith(f".{kind}")]
            cells.append(f"{reasons.count(None)} of {len(reasons)}")
            why.update(x for x in reasons if x is not None)
        told = ", ".join(f"{text} ({n})" for text, n in why.most_common())
        lines.append(f"| {runtime} | {version} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines) + "\n"


def text(page: str, found: dict[str, Any]) -> str:
    """The page with the table in its place."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{table(found)}{END}{rest.split(END)[1]}"
