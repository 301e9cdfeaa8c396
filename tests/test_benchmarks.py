"""What `python -m benchmarks` measures with: turns in random order, rows, the peers' networks."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from benchmarks import process
from benchmarks.compile_peers import FAMILIES, measure_compiling
from benchmarks.fit_overhead import TARGETS
from benchmarks.measure import LEAST, Effort, Turn, interleaved
from benchmarks.networks import in_dsl
from benchmarks.networks.sizes import IMAGES
from benchmarks.peers.base import Absent, Lacking, installed
from benchmarks.peers.compiled_torch import check_compiler, time_limit
from benchmarks.peers.known import PEERS
from benchmarks.peers.ours import Ours
from benchmarks.rows import Bench, Row, agreeing
from benchmarks.sides import AGAIN, NATIVE, OURS
from benchmarks.workloads import LEARNING_RATES, WORKLOADS, Targets, Workload, numbers

TINY = Workload(
    *("tiny", 2, "adam", "perceptron"),
    numbers(3, classes=2),
    {"widths": (3, 4, 2)},
    targets=Targets(2.0),
    checked=3,
)


class Hands:
    """A clock that only moves when it is told to; a call of a side moves it by its cost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked = 0.0
        self.called: list[str] = []

    def wall(self) -> float:
        return self.now

    def processor(self) -> float:
        return self.worked

    def call(self, name: str, cost: float) -> Callable[[], None]:
        def called() -> None:
            self.called.append(name)
            self.now += cost
            self.worked += cost / 2

        return called


class Paced:
    """A peer whose steps are ours, and whose time is what it is said to be."""

    def __init__(self, name: str, hands: Hands, cost: float, wrong: float = 0.0) -> None:
        self.name = name
        self.hands = hands
        self.cost = cost
        self.wrong = wrong
        self.is_finished = False

    def start(self, threads: int) -> None:
        return

    def training(self, workload: Workload, state: Any, threads: int) -> Any:
        return _PacedSide(self, Ours().training(workload, state, threads))

    def inference(self, workload: Workload, state: Any, threads: int) -> Any:
        return _PacedSide(self, Ours().inference(workload, state, threads))

    def finish(self) -> None:
        self.is_finished = True


class _PacedSide:
    def __init__(self, peer: Paced, side: Any) -> None:
        self.peer = peer
        self.side = side

    def call(self, batch: Any) -> Callable[[], Any]:
        call, tick = self.side.call(batch), self.peer.hands.call(self.peer.name, self.peer.cost)

        def called() -> Any:
            tick()
            return call()

        return called

    def read(self, result: Any) -> Any:
        return self.side.read(result) * (1 + self.peer.wrong)

    def wait(self) -> None:
        return


class Without(Paced):
    """One that has no such step."""

    def training(self, workload: Workload, state: Any, threads: int) -> Any:
        raise Lacking(f"{workload.network} is not written here")


class Away(Paced):
    """One that is not installed."""

    def start(self, threads: int) -> None:
        raise Absent("it is not installed")


def bench(hands: Hands, monkeypatch: pytest.MonkeyPatch, *peers: Any) -> Bench:
    """With our own steps at 1 ms, on that clock."""

    class Ticking(Ours):
        def training(self, *arguments: Any) -> Any:
            return _PacedSide(Paced(self.name, hands, 1e-3), super().training(*arguments))

        def inference(self, *arguments: Any) -> Any:
            return _PacedSide(Paced(self.name, hands, 1e-3), super().inference(*arguments))

    monkeypatch.setattr("benchmarks.rows.Ours", Ticking)
    return Bench(peers, effort=Effort(9, 1.0), clock=hands)


def test_all_sides_have_their_turn_in_each_round_in_another_order() -> None:
    hands = Hands()
    costs = {"a": 0.02, "b": 0.03, "c": 0.05}
    sides = {name: Turn([hands.call(name, cost)]) for name, cost in costs.items()}
    timings = interleaved(sides, Effort(12, 100.0), hands)
    for name, cost in costs.items():
        assert np.allclose(timings[name].wall, cost) and len(timings[name].wall) == 12
        assert timings[name].processor_median == pytest.approx(cost / 2)
    turns = hands.called[-36:]
    rounds = [tuple(turns[i : i + 3]) for i in range(0, 36, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2
    assert timings["b"].processor_ratio(timings["a"]) == pytest.approx(1.5)
    ratio, quartiles = timings["b"].ratio(timings["a"])
    assert ratio == pytest.approx(1.5) and quartiles == pytest.approx((1.5, 1.5))


def test_short_calls_are_repeated_alike_and_what_is_still_to_be_done_is_waited_for() -> None:
    hands = Hands()
    wait = hands.call("wait", 0.001)
    sides = {"a": Turn([hands.call("a", 0.001)]), "b": Turn([hands.call("b", 0.002)], wait)}
    timings = interleaved(sides, Effort(5, 100.0), hands)
    assert timings["a"].median == pytest.approx(0.001)
    assert timings["b"].median == pytest.approx(0.0021)
    assert hands.called.count("a") == hands.called.count("b") == 5 + 5 * 10


@pytest.mark.parametrize("seconds, rounds", [(0.0, LEAST), (1.0, 10), (100.0, 41)])
def test_a_row_takes_about_the_seconds_that_it_is_given(seconds: float, rounds: int) -> None:
    hands = Hands()
    timings = interleaved({"a": Turn([hands.call("a", 0.1)])}, Effort(41, seconds), hands)
    assert len(timings["a"].wall) == rounds


def test_a_row_has_the_best_peer_an_equal_of_ours_and_who_is_lacking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Hands()
    peers = [Paced("slow", hands, 3e-3), Paced("fast", hands, 1.5e-3), Without("poor", hands, 1.0)]
    row = bench(hands, monkeypatch, *peers).training(TINY)
    assert row.best == "fast" and row.ratio == pytest.approx(1.5) and row.is_short
    assert row.again == pytest.approx(1.0) and row.noise == 0.03
    assert list(row.sides) == [OURS, AGAIN, "slow", "fast"]
    assert row.lacking == {"poor": "perceptron is not written here"}
    assert row.native_ratio is None and row.name == "tiny adam B2"
    assert row.sides["slow"].difference == 0 and all(p.is_finished for p in peers)
    met = replace(row, targets=Targets(1.4))
    assert not met.is_short


def test_inference_is_a_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    hands = Hands()
    row = bench(hands, monkeypatch, Paced("peer", hands, 5e-4)).inference(TINY)
    assert row.best == "peer" and row.ratio == pytest.approx(0.5) and row.name == "tiny B2"
    assert "nncompile TorchScript" in row.sides


def test_native_kernels_have_a_column_and_a_target_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Hands()
    native, peer = Paced(NATIVE, hands, 5e-4), Paced("peer", hands, 2e-3)
    row = bench(hands, monkeypatch, native, peer).training(TINY)
    assert row.best == "peer" and row.ratio == pytest.approx(2.0)
    assert row.native_ratio == pytest.approx(4.0)
    assert not row.is_short and replace(row, targets=Targets(1.0, 4.5)).is_short


def test_nothing_is_timed_where_losses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands()
    wrong = Paced("wrong", hands, 1e-3, wrong=1e-3)
    with pytest.raises(AssertionError, match=r"tiny adam B2: wrong differs by 0\.001, more than"):
        bench(hands, monkeypatch, wrong).training(TINY)
    assert len(hands.called) == 3 * 3  # the losses of ours, ours again, and the wrong ones
    lacking: dict[str, str] = {}
    results = {OURS: np.ones(2), "right": np.ones(2), "wrong": np.full(2, np.nan)}
    assert agreeing(results, 1e-3, "row", lacking) == {OURS: 0.0, "right": 0.0}
    assert lacking == {"wrong": "it differs by nan, more than 0.001, and others do not"}
    with pytest.raises(AssertionError, match="row: nncompile native differs"):
        agreeing({**results, NATIVE: np.zeros(2)}, 1e-3, "row", {})


def test_random_masks_are_left_out_where_losses_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Hands()
    dropped = replace(TINY, options={**TINY.options, "drop": 0.5}, fixed={"drop": 0.0})
    row = bench(hands, monkeypatch, Paced("peer", hands, 1e-3)).training(dropped)
    assert row.remark == "losses compared with drop=0" and dropped.settled().options["drop"] == 0


def test_a_peer_that_is_not_installed_is_a_line() -> None:
    hands = Hands()
    here = Bench.of([Away("away", hands, 1.0), Paced("here", hands, 1.0)], 1, Effort())
    assert here.absent["away"] == "it is not installed"
    assert "here" in [peer.name for peer in here.peers]
    with pytest.raises(Absent, match="no_such_package is not installed"):
        installed("no_such_package")


def test_a_compiler_that_is_not_there_or_takes_long_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(Absent, match=r"/no/such/compiler does not run: No such file"):
        check_compiler()
    with pytest.raises(TimeoutError), time_limit(0.01):
        while True:
            random.random()
    with time_limit(5.0):
        pass


def _options(function: Any) -> Mapping[str, Any]:
    inputs = ("self", "p", "x", "mask", "written_out")
    found = inspect.signature(function).parameters.items()
    return {name: p.default for name, p in found if name not in inputs}


@pytest.mark.parametrize("framework, package", [("in_torch", "torch"), ("in_jax", "jax")])
def test_every_network_is_there_in_every_framework_with_the_same_options(
    framework: str, package: str
) -> None:
    pytest.importorskip(package)
    written = import_module(f"benchmarks.networks.{framework}")
    for name, network in in_dsl.NETWORKS.items():
        ours, theirs = _options(network), _options(written.NETWORKS[name])
        assert ours == theirs, name


def test_every_workload_is_of_a_network_and_an_optimizer_that_there_is() -> None:
    assert {w.network for w in WORKLOADS} <= set(in_dsl.NETWORKS)
    assert {w.optimizer for w in WORKLOADS} <= set(LEARNING_RATES)
    keys = [w.key for w in WORKLOADS]
    assert len(set(keys)) == len(keys) and set(process.SUBJECTS) <= set(keys)
    assert {p.name for p in PEERS} >= set(process.SIDES) - {NATIVE}


SMALL = {
    "lenet": {},
    "bag": {"words": 20, "width": 4, "length": 5},
    "temporal": {"channels": 4, "blocks": 2},
    "autoencoder": {},
    "vgg": {"stages": ((2,), (3, 3)), "hidden": 5},
    # Of 4 channels, torch 2.13 writes beyond its memory on processors without AVX-512.
    "resnet": {"stages": ((8, 1), (16, 2)), "depth": 1, "size": 40},
    "densenet": {"layers": 2, "growth": 2},
    "gpt": {"tokens": 11, "length": 6, "width": 8, "heads": 2, "blocks": 1},
    "recurrent": {"kind": "GRU", "layers": 2, "bidirectional": True, "width": 5},
}


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_the_peers_networks_compute_what_ours_do(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of small ones with each optimizer in turn."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    pytest.importorskip(package)
    known = {p.name: p for p in PEERS}
    plain = known[{"torch": "torch fused", "jax": "jax.jit"}[package]]
    inputs = {w.network: w.inputs for w in WORKLOADS}
    inputs |= {
        "bag": lambda rng, n: {"x": rng.integers(0, 20, (n, 5)), "label": rng.integers(0, 4, n)},
        "gpt": lambda rng, n: {
            "x": rng.integers(0, 11, (n, 6)),
            "label": rng.integers(0, 11, (n, 6)),
        },
        "resnet": numbers(3, 40, 40, classes=10),
        "densenet": numbers(3, 32, 32, classes=10),
        "recurrent": numbers(4, 5, classes=10),
    }
    optimizers = [*LEARNING_RATES, *LEARNING_RATES, *LEARNING_RATES]
    for (network, options), optimizer in zip(SMALL.items(), optimizers, strict=False):
        if package == "jax" and network in ("lenet", "vgg", "densenet"):
            continue  # XLA takes seconds for each, and others have their layers
        loss = "mse" if network == "autoencoder" else "cross_entropy"
        workload = Workload(network, 4, optimizer, network, inputs[network], options, loss=loss)
        is_image = package == "torch" and network in IMAGES
        peer = known["torch channels last"] if is_image else plain
        assert _losses(Ours(), workload) == pytest.approx(_losses(peer, workload), rel=2e-4)


def _losses(peer: Any, workload: Workload) -> list[float]:
    peer.start(1)
    state = import_module("benchmarks.initial").initial(workload)
    side = peer.training(workload, state, 1)
    return [float(side.read(side.call(batch)())) for batch in workload.batches(2)]


def test_compiling_is_timed_until_the_first_step_and_ends_where_a_peer_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Hands()
    monkeypatch.setattr("benchmarks.compile_peers.LIMIT", 0.0)
    (family,) = (f for f in FAMILIES if f.name == "tensors")
    small = {f"{n} layers": replace(TINY, options={"widths": (3,) * n + (2,)}) for n in (2, 3)}
    peer = Paced("jax.jit", hands, 1.0)
    figures = list(measure_compiling([peer], 1, "", [replace(family, subjects=small)]))
    assert [f.subject for f in figures] == ["2 layers", "3 layers"]
    assert set(figures[0].sides) == {OURS, "jax.jit"} and set(figures[1].sides) == {OURS}
    assert figures[1].lacking == {"jax.jit": "over 0 s for 2 layers"}
    assert figures[1].best is None and not figures[1].is_short


def test_memory_and_the_first_step_are_those_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    if not process.STATUS.exists():
        pytest.skip("the memory of a process is read from /proc")
    monkeypatch.setattr(process, "SUBJECTS", ("tiny sgd B1",))
    figures = {f.what: f for f in process.measure_processes([], 1, "memory tiny")}
    assert 20 < figures["resident"].sides[OURS] <= figures["peak"].sides[OURS] < 2000
    assert 0 < figures["first step"].sides[OURS] < 100
    with pytest.raises(Lacking, match="no workload is called"):
        process._child(OURS, "no such workload", process.STATUS, 1, process.STATUS.parent)


def test_what_fit_adds_has_a_target_for_each_kind_of_data() -> None:
    assert set(TARGETS) == {"arrays", "list of batches", "list of tuples"}


def test_rows_are_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands()
    row = bench(hands, monkeypatch, Paced("peer", hands, 2e-3)).training(TINY)
    document = import_module("benchmarks.document")
    kept = document.as_json(row)
    assert document.as_row(kept) == row and kept["best"] == "peer"
    assert isinstance(document.as_row(kept), Row)
