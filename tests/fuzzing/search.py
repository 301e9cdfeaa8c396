"""Programs drawn by hypothesis, checked, and made small where they fail."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.graph import Graph
from nncompile.ir.op import Op
from nncompile.passes import PASSES, optimize
from nncompile.runtime.native import native_library
from tests.fuzzing.checks import (
    Derived,
    check_double,
    check_gradients,
    check_inference,
    check_interned,
    check_onnx,
    check_passes,
    check_types,
    derived,
    has_double,
)
from tests.fuzzing.comparison import Mismatch, Reference
from tests.fuzzing.printing import printed
from tests.fuzzing.program import Builder, Program
from tests.fuzzing.shrinking import smaller
from tests.fuzzing.special import check_special_data, with_special_data
from tests.fuzzing.steps import apply_op_type
from tests.op_types import registered_ops

SIMPLE = ("Map", "Sum", "Expand", "Reshape", "Transpose", "MatMul")  # what failures shrink to


@cache
def op_types() -> tuple[type[Op], ...]:
    """All ops, simple ones first."""
    found = registered_ops()
    return tuple(sorted(found, key=lambda c: (_place(c), c.__name__)))


def _place(op_type: type[Op]) -> int:
    return SIMPLE.index(op_type.__name__) if op_type.__name__ in SIMPLE else len(SIMPLE)


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Refuted(Exception):
    """A program failed; raised at one place, so that hypothesis takes failures for one."""


class Enough(BaseException):
    """Ends hypothesis, which would go on to draw smaller programs that nobody checks."""


@dataclass(frozen=True)
class Plan:
    """Which checks a program gets; those that cost much, some programs only."""

    order: int = 2
    optimized_level: str = "all"
    without: tuple[str, ...] = ()
    twice: bool = True
    double: bool = False
    inference: bool = False
    plain_runtime: bool = True  # onnxruntime on the graph as written, too
    calling: str = ""  # or "functions" or "native kernels": how calls of those are run
    torch: str = "source"  # or "script", or ""


@dataclass(frozen=True)
class Found:
    """A program with the checks that it gets. Printed, it is a model in the DSL."""

    program: Program
    plan: Plan

    def __repr__(self) -> str:
        return f"# {self.plan}\n{printed(self.program)}"


@st.composite
def programs(draw: st.DrawFn, focus: type[Op] | None = None, most: int = 5) -> Found:
    """Random programs of up to so many steps, every other of which is the op `focus`."""

    def integer(low: int, high: int) -> int:
        return draw(_integers(low, high)) if low < high else low

    known = op_types()
    b = Builder(integer, integer(0, 2**16))
    for _ in range(integer(1, most)):
        plain = focus is None or b.chance(55)
        apply_op_type(b, b.choose(known) if plain or focus is None else focus)
    hypothesis.assume(b.values)
    without: tuple[str, ...] = ()
    if b.chance(25):
        without = tuple(name for name in PASSES if b.chance(40))
    plan = Plan(
        order=b.choose((1, 2, 0, 1, 2, 1)),
        optimized_level="all" if b.chance(75) else "disabled",
        without=without,
        twice=b.chance(30),
        double=b.chance(25),
        inference=b.chance(15),
        plain_runtime=b.chance(40),
        calling=_calling(b.seed),
        torch="script" if b.chance(8) else "source" if b.chance(60) else "",
    )
    program = b.finished()
    return Found(with_special_data(program) if b.chance(25) else program, plan)


def _calling(seed: int) -> str:
    """Every third program calls native kernels; where there are none, every sixth."""
    if seed % 3:
        return ""
    is_native = seed % 2 and native_library() is not None
    return "native kernels" if is_native else "functions" if seed % 2 == 0 else ""


@cache
def torch_checks() -> Any:
    """The checks of TorchScript; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    return importlib.import_module("tests.fuzzing.torch_checks")


def check(program: Program, plan: Plan, kind: str = "") -> None:
    """Everything that the plan says, or of it what fails as `kind`: all that a failing program is
    tried for as it is made smaller. Raises where something is wrong."""
    made = derived(program, plan.order)
    graph = made.graph
    if program.special:
        sizes, feeds = made.bindings.pop()
        check_special_data(graph, sizes, feeds, torch_checks() if plan.torch else None)
        if not made.bindings:
            return
    known = kind.startswith(KINDS)
    for begins, run in _checks(made, plan):
        if not known or kind.startswith(begins):
            run()


Check = Callable[[], None]
# How the kinds of failures begin that one of the checks finds, and no other.
KINDS = ("interned", "type", "gradient", "passes", "onnxruntime", "TorchScript", "torch")


def _checks(made: Derived, plan: Plan) -> list[tuple[str, Check]]:
    """What the plan says, in order, each with how the kinds of its failures begin."""
    graph = made.graph
    reference = Reference(graph, made.bindings)
    optimized = cache(lambda: optimize(graph, without=plan.without))
    level, other = plan.optimized_level, "disabled" if plan.optimized_level == "all" else "all"
    checks: list[tuple[str, Check]] = [
        ("interned", lambda: check_interned(graph)),
        ("type", lambda: check_types(reference)),
        ("gradient", lambda: check_gradients(made)),
        ("passes", lambda: check_passes(reference, optimized(), plan.without, plan.twice)),
    ]
    if plan.double:
        checks.append(("passes", lambda: check_double(reference, plan.without)))
    if plan.inference:
        checks.append(("passes", lambda: check_inference(made.program)))
    runs: list[tuple[str, Check]] = [
        ("onnxruntime", lambda: check_onnx(reference, optimized(), level))
    ]
    if plan.plain_runtime:
        runs.append(("onnxruntime", lambda: check_onnx(reference, graph, other)))
    if plan.calling:
        runs.append(("onnxruntime", lambda: check_onnx(reference, optimized(), plan.calling)))
    torch = torch_checks() if plan.torch else None
    if torch is not None and plan.torch == "script":
        runs.append(("TorchScript", lambda: torch.check_script(reference, optimized())))
    elif torch is not None:
        runs.append(("torch", lambda: torch.check_source(reference, optimized())))
    return [*checks, *((begins, partial(_but_for_doubles, run, graph)) for begins, run in runs)]


def _but_for_doubles(run: Check, graph: Graph) -> None:
    try:
        run()
    except BackendError:
        if not has_double(graph):  # for which runtimes have few kernels
            raise


@dataclass
class Failure:
    """What is wrong with a program, and the smallest one found that it is wrong with."""

    kind: str
    message: str
    program: Program
    plan: Plan

    def __str__(self) -> str:
        return f"{self.message}\n{self.plan}\n\n{printed(self.program)}"


SHRINKING = 400  # tries to make a failing program smaller: some twenty seconds


@dataclass
class Results:
    """How many programs were checked, of which ops, and what failed."""

    count: int = 0
    seconds: float = 0.0
    op_types: Counter[str] = field(default_factory=Counter)
    orders: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Results) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.op_types.update(other.op_types)
        self.orders.update(other.orders)
        self.failures += other.failures


def kind_of(error: BaseException) -> str:
    """What stays the same while a failing program is made smaller."""
    if isinstance(error, Mismatch):
        return error.kind
    return type(error).__name__


def search(
    count: int,
    seed: int,
    focus: type[Op] | None = None,
    shrinking: int = SHRINKING,
) -> Results:
    """Checks so many programs; ends with the first that fails, which is made smaller by about
    twice `shrinking` tries."""
    results = Results()
    start = time.process_time()
    failed: dict[str, BaseException] = {}  # by the program: found again, it fails again
    last: list[Found] = []
    left = [shrinking]  # tries to make it smaller

    def failure(found: Found) -> BaseException | None:
        if failed:
            if not left[0]:
                raise Enough
            left[0] -= 1
        else:
            results.count += 1
            results.op_types.update(found.program.op_types)
        first = next(iter(failed.values()), None)
        try:
            check(found.program, found.plan, kind_of(first) if first else "")
        except Exception as error:
            # Another one than the first is not what this search is for.
            return error if first is None or kind_of(error) == kind_of(first) else None
        return None

    def run(found: Found) -> None:
        key = repr(found) if failed else ""
        error = failed.get(key) or failure(found)
        if error is None:
            return
        failed[key or repr(found)] = error
        last[:] = [found]
        raise Refuted(kind_of(error))

    settings = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    test = hypothesis.seed(seed)(settings(hypothesis.given(programs(focus))(run)))
    with contextlib.suppress(Refuted, Enough):
        test()
    if last:
        found = last[0]
        results.failures.append(_smallest(found, failed[repr(found)], shrinking))
    results.seconds = time.process_time() - start
    return results


def _smallest(found: Found, error: BaseException, tries: int) -> Failure:
    """The failure, of a program that is as small as can be found in so many tries."""
    kind = kind_of(error)
    message = [str(error)]

    def fails(program: Program) -> bool:
        try:
            check(program, found.plan, kind)
        except Exception as other:
            if kind_of(other) == kind:
                message[0] = str(other)
                return True
        return False

    program = smaller(found.program, fails, tries)
    return Failure(kind, f"{type(error).__name__}: {message[0]}", program, found.plan)
