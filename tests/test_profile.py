"""Where the time of a step goes: nodes that ran, by the lines that they were written in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    GRU,
    Conv2d,
    Dense,
    adam,
    cross_entropy,
    f32,
    flatten,
    i64,
    max_pool,
    model,
    relu,
    training,
)
from nncompile import BackendError, FeedError, Trainer
from nncompile.runtime.profiling import node_times, original_name
from nncompile.train import profile, step_profile
from nncompile.train.step_profile import _without_overhead
from tests.command_line import succeeds


@model
def images(x: Any = f32["batch", 1, 12, 12], label: Any = i64["batch"]) -> Any:
    maps = x >> Conv2d(24, 5, padding=2) >> relu
    small = flatten(max_pool(maps, 2))
    logits = small >> Dense(10)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def examples(count: int = 40) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 1, 12, 12)).astype(np.float32)
    return {"x": x, "label": generator.integers(0, 10, count)}


def test_a_profile_has_the_lines_of_the_model_and_leaves_the_training_alone() -> None:
    # Native kernels are so fast here that the convolution is not what takes longest.
    recipe = training(images, optimizer=adam(1e-3), batch_size=16)
    trainer = Trainer(recipe, threads=1, native=False)
    before = trainer.state
    found = profile(trainer, examples(), steps=5)
    assert trainer.step == 0
    for name, array in trainer.state.items():
        np.testing.assert_array_equal(array, before[name])
    texts = [line.text for line in found.lines]
    assert texts[0].startswith("maps = x >> Conv2d")  # most of the products are there
    assert any(text.startswith("small =") for text in texts)
    assert all(line.place.startswith("test_profile.py:") for line in found.lines)
    convolution = found.lines[0]
    assert convolution.forward > 0 and convolution.backward > 0
    assert found.update > 0 and found.steps == 5 and found.batch["x"] == (16, 1, 12, 12)
    assert found.nodes + found.between >= found.step > 0
    shown = str(found)
    assert "update of the weights" in shown and "other nodes" in shown and "maps = x" in shown
    shares = [float(row[3].rstrip("%")) for row in list(found.rows())[1:]]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "<table>" in found._repr_html_()
    short = list(found.rows(1))
    assert short[2][0] == f"{len(found.lines) - 1} more lines"


def test_nodes_of_loops_count_once_and_at_their_line() -> None:
    @model
    def sequences(x: Any = f32["batch", "time", 3], y: Any = i64["batch"]) -> Any:
        last = x >> GRU(8)
        logits = last >> Dense(2)
        return {"logits": logits, "loss": cross_entropy(logits, y)}

    trainer = Trainer(training(sequences, batch_size=4), threads=1)
    x = np.ones((4, 9, 3), np.float32)
    found = profile(trainer, {"x": x, "y": np.zeros(4, np.int64)}, steps=5)
    assert found.lines[0].text.startswith("last =")
    assert found.other < 0.2 * found.nodes
    with pytest.raises(FeedError):
        profile(trainer, {"x": x})


@pytest.mark.parametrize(
    ("each", "seconds", "calls", "counted"),
    [(0.01, 5.0, 5, 3), (0.2, 0.5, 3, 1), (0.3, 0.5, 2, 1), (2.0, 0.5, 1, 1)],
)
def test_slow_steps_are_profiled_less_often(
    each: float, seconds: float, calls: int, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Runner:
        made = 0

        def step(self, batch: Any) -> None:
            self.made += 1

    runner: Any = Runner()
    monkeypatch.setattr(step_profile.time, "perf_counter", lambda: each * runner.made)
    durations = list(step_profile._run(runner, {}, 3, seconds))
    assert (runner.made, len(durations)) == (calls, counted)
    assert durations == pytest.approx([each] * counted)


def test_steps_are_made_without_measuring_only_where_that_takes_a_part_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(training(images, optimizer=adam(1e-3), batch_size=16), threads=1)
    made: list[Any] = []
    plain = type(trainer.compiled).runner

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        made.append(given)
        return plain(self, *given, **options)

    monkeypatch.setattr(type(trainer.compiled), "runner", counted)
    for share, runners in ((1e9, 1), (0.0, 2)):
        monkeypatch.setattr(step_profile, "_NEGLIGIBLE", share)
        made.clear()
        found = profile(trainer, examples(), steps=2)
        assert len(made) == runners and found.steps == 2 and found.step > 0


def event(name: str, ts: int, dur: int, cat: str = "Node") -> dict[str, Any]:
    name = name if cat == "Session" else f"{name}_kernel_time"
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "ph": "X"}


def test_times_of_nodes_are_their_own(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    first = [event("inner", 12, 5), event("inner", 18, 4), event("loop", 10, 15), event("a", 30, 3)]
    second = [event("a", 60, 7), event("model_run", 55, 20, "Session")]
    cut_short = [event("a", 90, 1)]
    events = [*first, event("model_run", 5, 35, "Session"), *second, *cut_short]
    path.write_text(json.dumps(events))
    assert node_times(path) == [{"loop": 5.0, "inner": 9.0, "a": 3.0}, {"a": 7.0}]
    path.write_text(json.dumps(first))
    with pytest.raises(BackendError, match="no whole run"):
        node_times(path)
    path.write_text("[")
    with pytest.raises(BackendError, match="cannot be read"):
        node_times(path)


def test_fused_nodes_are_found_by_the_name_of_a_part() -> None:
    find = original_name(dict.fromkeys(("net/gemm_1", "net/gemm_12", "net/a", "Gather")))
    assert find("net/gemm_12") == "net/gemm_12"
    assert find("fused net/gemm_1") == "net/gemm_1"
    assert find("net/gemm_12/MatmulTransposeFusion//MatMulScaleFusion/") == "net/gemm_12"
    assert find("net/gemm_1_nchwc") == "net/gemm_1"
    assert find("net/gemm_123") is None and find("ReorderInput_token_15") is None


def test_what_measuring_takes_is_taken_off_all_alike() -> None:
    assert _without_overhead({"a": 5.0, "b": 3.0, "c": 2.0}, 7.0) == {"a": 4.0, "b": 2.0, "c": 1.0}
    assert _without_overhead({"a": 5.0, "b": 1.0}, 1.0) == {"a": 1.0, "b": 0.0}  # no less than none
    assert _without_overhead({"a": 5.0, "b": 1.0}, 9.0) == {"a": 5.0, "b": 1.0}
    # On a busy machine nodes seem a hundred times as long: none of them vanishes.
    assert _without_overhead({"a": 805.0, "b": 205.0}, 10.0) == {"a": 8.0, "b": 2.0}


def test_show_prints_a_profile(good: Path) -> None:
    told = succeeds("show", good, "--profile")
    assert "µs a step" in told and "update of the weights" in told and f"{good.name}:" in told
