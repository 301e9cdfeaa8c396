"""What there is of each operator, found by running: a row of the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import ENTRIES
from nncompile.ir.interpreter import evaluate
from tests.onnx_cases.element_types import DTYPES, of_type, written
from tests.onnx_cases.forms import as_version, by_onnxruntime, by_reference, versions_of
from tests.onnx_cases.gradients import Slopes, slopes
from tests.onnx_cases.imported import Imported, Stopped, in_onnxruntime, resolved
from tests.onnx_cases.own_samples import own_samples
from tests.onnx_cases.running import Outcome, difference, outcome
from tests.onnx_cases.samples import (
    DIFFERENTIABLE,
    Operator,
    Sample,
    as_real,
    formal,
    operator_of,
    samples_of_cases,
    schema_of,
)

TICK, CROSS, ZERO, ABSENT = "✓", "✗", "0", "–"
# Half a unit of the last place of 16 bits, several times; the rest is as onnx compares.
_RELATIVE = {"bfloat16": 2.0**-6, "float16": 2.0**-8}
_NEAR = 1e-5  # of the largest


@dataclass
class Examined:
    """An operator, with its cases and samples."""

    operator: Operator
    cases: list[Any] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @cached_property
    def schemas(self) -> dict[int, onnx.defs.OpSchema]:
        """By the opset that each is since; those of deprecated versions are left out."""
        found = versions_of(self.operator)
        return {v: s for v, s in found.items() if not s.deprecated}

    @cached_property
    def is_deprecated(self) -> bool:
        found = versions_of(self.operator)
        return bool(found) and found[max(found)].deprecated

    @cached_property
    def newest(self) -> onnx.defs.OpSchema | None:
        return self.schemas[max(self.schemas)] if self.schemas else None

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What becomes of its cases."""
        return [outcome(case) for case in self.cases]

    @cached_property
    def versions(self) -> dict[int, bool]:
        """The opsets that its versions are since, and whether a node of each is imported, and gives
        the numbers that others make of it."""
        return {v: self._works(lambda s, v=v: self._form(s, v)) for v in self.schemas}  # type: ignore[misc]

    def _form(self, sample: Sample, version: int) -> Sample | None:
        return as_version(sample, self.schemas[version])

    @cached_property
    def element_types(self) -> list[str]:
        """The element types that its first input may have, found in the same way."""
        newest = self.newest
        if newest is None:
            return []

        def of(dtype: np.dtype[Any]) -> Callable[[Sample], Sample | None]:
            def changed(sample: Sample) -> Sample | None:
                plain = as_version(sample, newest)
                is_one = plain is not None and len(plain.model.graph.node) == 1
                return of_type(plain, newest, dtype) if plain is not None and is_one else None

            return changed

        return [name for name, dtype in DTYPES.items() if self._works(of(dtype))]

    def _works(self, change: Callable[[Sample], Sample | None]) -> bool:
        """Whether one of the samples, changed, is imported with the right numbers."""
        for sample in sorted(self.samples, key=lambda s: -s.opset):
            changed = change(sample)
            if changed is None:
                continue
            case = imported_or_none(changed)
            if case is not None and self._agrees(changed, case):
                return True
        return False

    def _agrees(self, sample: Sample, case: Imported) -> bool:
        """Whether the results are those of onnxruntime, of this node or of another version of it;
        of onnx's evaluation; or, where neither has an opinion, those of numpy."""
        got = in_onnxruntime(case)
        forms = [f for s in self.schemas.values() if (f := as_version(sample, s)) is not None]
        for wanted in (
            by_onnxruntime(sample),
            *map(by_onnxruntime, reversed(forms)),
            by_reference(sample),
        ):
            if wanted is not None and same_types(got, wanted):
                if case.draws:  # of random numbers there are only types and sizes to compare
                    got, wanted = [*map(np.zeros_like, got)], [*map(np.zeros_like, wanted)]
                return same(got, wanted)
        exact = evaluate(case.graph, case.feeds)
        return same(got, [exact[name] for name in case.results])

    @cached_property
    def slopes(self) -> dict[str, Slopes]:
        """What is found of the gradients of its samples, by their names."""
        found = {}
        for sample in self.samples:
            real = as_real(sample)
            case = imported_or_none(real)
            slope = None if case is None else slopes(case, sample.name)
            if slope is not None:
                found[sample.name] = slope
        return found

    @property
    def problems(self) -> list[str]:
        """What is wrong with gradients."""
        return [f"{name}: {s.problem}" for name, s in self.slopes.items() if s.problem]

    @property
    def is_differentiable(self) -> bool:
        """Whether onnx says that results have a slope at inputs, in the newest version."""
        schemas = versions_of(self.operator)
        newest = schemas[max(schemas)] if schemas else None
        return newest is not None and all(
            any(p.differentiation_category == DIFFERENTIABLE for p in formals)
            for formals in (newest.inputs, newest.outputs)
        )

    @property
    def unmoved(self) -> set[str]:
        """The inputs that onnx calls differentiable, and that no sample has a slope at."""
        wanted, moved = set(), set()
        for sample in self.samples:
            schema = schema_of(sample)
            if schema is None or len(sample.model.graph.node) > 1:
                continue
            moving = self.slopes[sample.name].moving if sample.name in self.slopes else frozenset()
            for i, name in enumerate(sample.node.input):
                parameter = formal(schema.inputs, i)
                if any(m == name or m.startswith(f"{name}_") for m in moving):
                    moved.add(parameter.name)
        if self.newest is not None:
            wanted = {
                i.name for i in self.newest.inputs if i.differentiation_category == DIFFERENTIABLE
            }
        return wanted - moved

    @property
    def is_imported(self) -> bool:
        return (
            any(self.versions.values())
            or any(o.result in ("passed", "close", "drawn") for o in self.outcomes)
            or (self.operator in ENTRIES and not self.schemas)
        )


def imported_or_none(sample: Sample) -> Imported | None:
    """The sample's graph; None where it is refused."""
    try:
        return resolved(sample.model, dict(sample.inputs), set())
    except (Stopped, Refused, CompileError):
        return None


def same_types(got: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether the results are of the same kinds and element types."""
    for a, b in zip(got, wanted, strict=False):
        if isinstance(a, list) != isinstance(b, list):
            return False
        if isinstance(a, np.ndarray) and getattr(b, "dtype", None) != a.dtype:
            return False
    return True


def same(got: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether the results are the same, to what their element types hold."""
    for a, b in zip(got, wanted, strict=False):
        if isinstance(b, list):
            if len(a) != len(b) or not same(a, b):
                return False
            continue
        if b is None or a is None:
            continue
        relative = _RELATIVE.get(b.dtype.name, 1e-4)
        largest = 1.0
        if b.dtype.kind not in "biu" and b.size:
            wide = b.astype(np.float64)
            largest = float(np.max(np.abs(wide), where=np.isfinite(wide), initial=0))
        nearness = max(_NEAR, _RELATIVE.get(b.dtype.name, 0)) * largest
        if difference([a], [b], relative, nearness):
            return False
    return True


def examined(cases: Iterable[Any]) -> dict[Operator, Examined]:
    """All operators of onnx and those that are imported, with their cases and samples."""
    schemas = {(s.domain, s.name) for s in onnx.defs.get_all_schemas_with_history()}
    found = {o: Examined(o) for o in sorted({*schemas, *ENTRIES}, key=_place)}
    known = list(cases)
    plain = {c.name: operator_of(c.model.graph.node[0]) for c in known if c.model.graph.node}
    for case in known:
        base = re.sub(r"_expanded(_ver\d+)?$", "", case.name)
        operator = plain.get(base) or plain.get(case.name)
        if operator in found:
            found[operator].cases.append(case)
    for sample in (*samples_of_cases(known), *own_samples()):
        for operator in sample.operators:
            found[operator].samples.append(sample)
    return found


def _place(operator: Operator) -> tuple[bool, str, str]:
    domain, name = operator
    return domain == "com.microsoft", domain, name


def row(op: Examined) -> str:
    """The operator's line of the page, by running it."""
    kinds = Counter(o.result for o in op.outcomes)
    total = f"{kinds['passed']} of {len(op.cases)}" if op.cases else ABSENT
    total += "".join(f", {kinds[k]} {k}" for k in ("close", "drawn") if kinds[k])
    cells = [
        f"`{op.operator[1]}`" + (" (deprecated)" if op.is_deprecated else ""),
        "∂" if op.is_differentiable else "",
        _versions(op),
        written(op.element_types) if op.is_imported else "",
        TICK if op.is_imported else ABSENT,
        *_gradients(op),
        total,
    ]
    return f"| {' | '.join(cells)} |"


def _versions(op: Examined) -> str:
    return " ".join(f"{v}" if works else f"~~{v}~~" for v, works in op.versions.items())


def _gradients(op: Examined) -> list[str]:
    """The cells of both orders."""
    if op.problems:
        return [f"{CROSS} {op.problems[0][:80]}".replace("|", "/")] * 2
    if not op.slopes:
        return [ABSENT, ABSENT]
    found = op.slopes.values()
    if not any(s.is_sloped for s in found):
        return [ZERO, ZERO]
    if op.is_differentiable and op.unmoved:
        return [f"{CROSS} at {', '.join(sorted(op.unmoved))}"] * 2
    return [TICK, TICK if any(s.is_curved for s in found) else ZERO]
