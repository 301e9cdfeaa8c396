"""The page of operators: what was found of each by running."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
import onnxruntime

from tests.onnx_cases.running import Outcome, cases, outcome
from tests.onnx_cases.samples import Operator
from tests.onnx_cases.table import CROSS, TICK, ZERO, Examined, examined, row

PAGE = Path(__file__).parents[2] / "docs" / "onnx-ops.md"
KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple", "light")
COLUMNS = (
    "operator",
    "onnx says",
    "since opset",
    "element types",
    "import",
    "gradient",
    "order 2",
    "node cases",
)
TITLES = {
    "": "ai.onnx",
    "ai.onnx.ml": "ai.onnx.ml",
    "ai.onnx.preview": "ai.onnx.preview",
    "ai.onnx.preview.training": "ai.onnx.preview.training",
    "com.microsoft": "com.microsoft",
}


class Cells(NamedTuple):
    """A row as it stands on the page."""

    operator: str
    says: str
    versions: str
    types: str
    imported: str
    gradient: str
    second: str
    cases: str

    @classmethod
    def of(cls, line: str) -> Cells:
        return cls(*(cell.strip() for cell in line.strip("|").split("|")))

    @property
    def is_differentiable(self) -> bool:
        return self.says == "∂"

    @property
    def is_deprecated(self) -> bool:
        return "deprecated" in self.operator


EXPLANATION = """
`python -m tests.onnx_cases --page` makes this page: each tick is a run that succeeded, and what is
not found so is not on it. The samples of an operator are the node cases of onnx of one node, and a
few of ours for what those leave out.

- *onnx says*: ∂ where the schema of the operator calls a result differentiable.
- *since opset*: the versions of the operator. A node of each was imported, and its results were
those of onnxruntime without optimizations, or, where that has no kernel, of another version of the
same node, or of onnx's own evaluation; where neither computes it, as little of bf16 is, the
exported graph is compared with numpy alone. ~~Struck through~~ are those that are refused.
- *element types*: of the first input, found in the same way in the newest version (`floats` are
bf16, f16, f32 and f64).
- *gradient*: what is imported was differentiated at all real inputs, at points away from kinks, and
compared with central differences in double precision along random directions. ✓ says that each
input that onnx calls differentiable moved a result; 0 that nothing moves any, as that of a step;
– that there are no real numbers, or that nothing is imported.
- *order 2*: the gradient of that gradient, at the inputs and at what the gradient is weighted with,
against central differences of the gradient. 0 says that it does not depend on the inputs. What
onnxruntime computes for both orders, in the element types of the sample, is compared as well.
- *node cases*: how many of onnx's cases of the operator, and of the functions that it is defined
by, pass. *Close* are those that differ by the last place of 16 bits, or by float32's noise about 0;
*drawn* those of random numbers, which onnx leaves to each runtime, with the right types and sizes.
Cases of 8-bit floats, of integers of 2 and 4 bits and of texts are among those that do not.
"""


def headline(rows: Iterable[Cells]) -> str:
    """How many operators have what."""
    known = list(rows)
    asked = [r for r in known if r.is_differentiable]
    current = [r for r in asked if not r.is_deprecated]
    with_gradient = [r for r in current if r.gradient in (TICK, ZERO)]
    curved = sum(r.second == TICK for r in with_gradient)
    straight = len(with_gradient) - curved
    zero = [r.operator for r in with_gradient if r.gradient == ZERO]
    others = [r for r in known if not r.is_differentiable and r.gradient == TICK]
    old = [r for r in asked if r.is_deprecated]
    imported = sum(r.imported == TICK for r in known)
    text = (
        f"**{len(with_gradient)} of the {len(current)} operators that onnx calls differentiable "
        "have a gradient, and a gradient of the gradient, which agree with central differences.** "
        f"The second is other than 0 for {curved} of them; {straight} are linear or piecewise "
        f"linear. Where there is a gradient of {', '.join(zero)}, it is 0. {len(others)} operators "
        "that onnx does not call so have a gradient, too"
        + "".join(f", and so has {r.operator}" for r in old if r.gradient == TICK)
        + f". {imported} of {len(known)} operators are imported."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def versions() -> str:
    """Of what the page is, which other versions have other operators, cases and kernels of."""
    return f"Of onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}."


def suites(counts: Mapping[str, Counter[str]]) -> list[str]:
    """The table of onnx's sets of cases."""
    lines = [
        "| cases of onnx | | passed | with inputs bound | close | drawn | refused | wrong |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, found in counts.items():
        total = sum(found.values()) - found["bound"]
        kinds = ("passed", "bound", "close", "drawn", "refused", "wrong")
        lines.append(f"| {' | '.join(map(str, [kind, total, *(found[k] for k in kinds)]))} |")
    return lines


def page(operators: Mapping[Operator, Examined], counts: Mapping[str, Counter[str]]) -> str:
    """The whole page, by running all operators."""
    rows = {operator: row(found) for operator, found in operators.items()}
    lines = ["# ONNX operators", "", headline(map(Cells.of, rows.values())), EXPLANATION]
    lines += [
        versions(),
        "",
        *suites(counts),
        "",
        "Some inputs are shapes, axes or counts; a case whose node is imported only once the",
        "numbers of such inputs are known has them bound. `light` are networks without their",
        "weights; `python -m tests.onnx_cases --kind light` runs them with random ones, too.",
    ]
    for domain, title in TITLES.items():
        lines += ["", f"## {title}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [line for (d, _), line in rows.items() if d == domain]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def counted(kind: str) -> Counter[str]:
    """How the cases of a set come out."""
    return tallied(map(outcome, cases(kind)))


def tallied(outcomes: Iterable[Outcome]) -> Counter[str]:
    found: Counter[str] = Counter()
    for o in outcomes:
        found[o.result] += 1
        found["bound"] += o.result == "passed" and bool(o.bound)
    return found


def write() -> list[str]:
    """Writes the page, which takes a minute or two; returns what is wrong on it."""
    operators = examined(cases())
    node = tallied(o for found in operators.values() for o in found.outcomes)
    counts = {kind: node if kind == "node" else counted(kind) for kind in KINDS}
    PAGE.write_text(page(operators, counts), encoding="utf-8")
    return [line for line in lines_of_page() if CROSS in line]


def lines_of_page() -> Sequence[str]:
    """The rows of operators as the page has them."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## ")[2]
    return [line for line in text.splitlines() if line.startswith("| `")]
