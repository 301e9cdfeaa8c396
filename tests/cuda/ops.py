"""Every op and its gradient on the device, compared with numpy in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from tests import op_checks
from tests.cuda.device import Placement, load, placed, run
from tests.op_types import Case, cases_of, registered_ops, typed_cases_of, varied_cases_of
from tests.tolerances import assert_close


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: str
    part: str  # "value" or "gradient"
    problem: str  # empty where the numbers are right
    on_cpu: tuple[str, ...]
    nodes: int


def all_cases() -> list[Case]:
    """The samples of every op, the varied and the typed ones among them."""
    return [
        case
        for op_type in registered_ops()
        for case in (*cases_of(op_type), *varied_cases_of(op_type), *typed_cases_of(op_type))
    ]


def check_all(provider: str, workers: int, only: str = "") -> list[Outcome]:
    """The outcomes of all cases. Each worker is a process: where a case ends it, the case is told
    and another goes on after it."""
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda first: _share(provider, first, workers, only), range(workers))
        return [outcome for share in found for outcome in share]


def _share(provider: str, first: int, stride: int, only: str) -> list[Outcome]:
    """The outcomes of a worker's share of the cases."""
    outcomes: list[Outcome] = []
    skipped = 0
    while True:
        receiver, sender = Pipe(duplex=False)
        job = (sender, provider, first, stride, skipped, only)
        process = get_context("spawn").Process(target=_work, args=job)
        process.start()
        sender.close()
        begun = None
        try:
            while (message := receiver.recv()) is not None:
                if isinstance(message, tuple):
                    skipped, begun = message
                else:
                    outcomes.append(message)
        except EOFError:
            process.join()
            said = f"the process ended with {process.exitcode}"
            outcomes.append(Outcome(str(begun), "value or gradient", said, (), 0))
            skipped += 1
            continue
        process.join()
        return outcomes


def _work(
    sender: Connection, provider: str, first: int, stride: int, skipped: int, only: str
) -> None:
    """Sends the number and name of each case before its outcomes, and None at the end."""
    for i, case in enumerate(all_cases()[first::stride]):
        if i < skipped or only not in case.name:
            continue
        sender.send((i, case.name))
        for outcome in _outcomes(case, provider):
            sender.send(outcome)
    sender.send(None)


def _outcomes(case: Case, provider: str) -> Iterator[Outcome]:
    yield _outcome(case, "value", provider, lambda: _value(case))
    if op_checks.is_differentiable(case) and case.sample.order >= 1:
        yield _outcome(case, "gradient", provider, lambda: _gradient(case))


def _value(case: Case) -> tuple[Graph, list[tuple[str, dict, dict]]]:  # type: ignore[type-arg]
    graph = case.graph(case.results)
    drawn = [(str(sizes), case.feeds(sizes)) for sizes in case.bindings]
    return graph, [(label, f, op_checks.in_double(graph, f)) for label, f in drawn]


def _gradient(case: Case) -> tuple[Graph, list[tuple[str, dict, dict]]]:  # type: ignore[type-arg]
    graph, feeds = op_checks.gradients_of(case)
    half = any(x.dtype.is_half for x in case.real)
    expected = (evaluate if half else op_checks.in_double)(graph, feeds)
    return graph, [(str(case.bindings[0]), feeds, expected)]


def _outcome(
    case: Case,
    part: str,
    provider: str,
    make: Callable[[], tuple[Graph, list]],  # type: ignore[type-arg]
) -> Outcome:
    graph, references = make()
    model = to_model(graph)
    try:
        session = load(model, provider)
        placement = placed(model) if provider == "cuda" else Placement(0, (), 0, (), 0)
    except Exception as error:
        return Outcome(case.name, part, f"load: {_line(error)}", (), 0)
    problem = ""
    for label, feeds, expected in references:
        try:
            actual = run(session, feeds)
            for name, y in graph.outputs.items():
                assert_close(actual[name], expected[name], y.dtype.name, f"{name} at {label}")
        except Exception as error:
            problem = f"{type(error).__name__} at {label}: {_line(error)}"
            break
    return Outcome(case.name, part, problem, placement.kinds, placement.nodes)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def summary(outcomes: list[Outcome]) -> list[str]:
    """The lines of the report."""
    wrong = [o for o in outcomes if o.problem]
    hosted: Counter[str] = Counter()
    cases: dict[str, str] = {}
    for outcome in outcomes:
        for node in set(outcome.on_cpu):
            hosted[node] += 1
            cases.setdefault(node, f"{outcome.case} {outcome.part}")
    lines = [f"{len(outcomes)} graphs: {len(outcomes) - len(wrong)} right, {len(wrong)} not"]
    lines += [f"  {o.case} {o.part}: {o.problem}" for o in wrong]
    lines.append(f"nodes of data on the CPU, in {sum(bool(o.on_cpu) for o in outcomes)} graphs:")
    lines += [f"  {n:4d}  {node}  first {cases[node]}" for node, n in hosted.most_common()]
    return lines
