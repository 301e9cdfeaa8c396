"""What `python -m benchmarks` tells of its rows: tables, files, comparisons, and what is short."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import document
from benchmarks.__main__ import below_target, chosen_peers, main, named_rows, stepped
from benchmarks.comparison import Change, changes
from benchmarks.figures import Figure
from benchmarks.machine import environment
from benchmarks.markdown import COMMAND, number, page, title_of
from benchmarks.rows import Row, SideResult
from benchmarks.sides import AGAIN, NATIVE, OURS
from benchmarks.workloads import WORKLOADS, Targets

ENVIRONMENT = {
    "processor": "Abacus 9000",
    "instructions": "AVX-512",
    "cores": 2,
    "versions": {"onnxruntime": "1.32.0", "torch": "2.13.0", "jax": "0.10.2"},
    "gflops": {"onnxruntime": 97.3, "torch": 101.6},
}


def side(milliseconds: float, ratio: float, native_ratio: float | None = None) -> SideResult:
    return SideResult(milliseconds, milliseconds, ratio, (ratio, ratio), 0.0, native_ratio)


def row(ours: float, again: float = 1.0, workload: str = "lenet", **peers: float) -> Row:
    sides = {OURS: side(ours, 1.0), AGAIN: side(ours * again, again)}
    sides |= {name: side(value, value / ours) for name, value in peers.items()}
    return Row("training", workload, 32, "sgd", 1, sides, Targets(1.0, 1.2), 2e-4, 41)


FIGURE = Figure("memory", "gpt adamw B8", "peak", "MB", {OURS: 200.0, "torch": 150.0})


def written(file: Path, rows: list[Row], figures: tuple[Figure, ...] = ()) -> Path:
    document.write(
        file,
        {
            "environment": ENVIRONMENT,
            "rows": [document.as_json(r) for r in rows],
            "figures": [document.figure_as_json(f) for f in figures],
        },
    )
    return file


def called(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize(
    "now, then, again, peers, verdict",
    [
        (1.0, 2.0, 1.0, (3.0, 3.0), "better"),
        (2.0, 1.0, 1.0, (3.0, 3.0), "worse"),
        (1.02, 1.0, 1.0, (3.0, 3.0), "noise"),  # 3 % are always
        (1.15, 1.0, 1.2, (3.0, 3.0), "noise"),  # our own step is as far from itself
        (2.0, 1.0, 1.0, (6.0, 3.0), "noise"),  # the peer became as slow: it is the machine
        (1.0, 2.0, 1.0, (1.0, 3.0), "noise"),  # and here it became faster than we did
    ],
)
def test_a_change_is_noise_where_the_row_or_the_machine_may_have_made_it(
    now: float, then: float, again: float, peers: tuple[float, float], verdict: str
) -> None:
    (change,), alone = changes([row(now, again, torch=peers[0])], [row(then, torch=peers[1])])
    assert change.ratio == pytest.approx(now / then) and not alone
    assert change.machine == pytest.approx(peers[0] / peers[1])
    assert change.verdict == verdict


def test_rows_of_one_run_alone_are_named_and_figures_are_compared_too() -> None:
    better = replace(FIGURE, sides={OURS: 100.0, "torch": 150.0})
    found, alone = changes([row(1.0), better], [row(1.0, workload="vgg"), FIGURE])
    assert found == [Change(FIGURE.key, 100.0, 200.0, 1.0, 0.1)]
    assert found[0].verdict == "better"
    assert alone == [
        "training lenet sgd B32, threads: 1",
        "training vgg sgd B32, threads: 1",
    ]


def test_less_is_better_of_a_figure() -> None:
    assert FIGURE.best == "torch" and FIGURE.ratio == 0.75 and FIGURE.is_short
    native = replace(FIGURE, sides={OURS: 100.0, NATIVE: 1.0, "torch": 150.0})
    assert native.best == "torch" and native.ratio == 1.5 and not native.is_short
    assert not replace(FIGURE, target=None).is_short
    assert replace(FIGURE, sides={OURS: 1.0}).ratio is None


def test_the_page_says_what_it_was_measured_on_and_which_peer_is_best() -> None:
    first = row(2.0, torch=3.0, jax=2.5)
    second = replace(row(0.0123, workload="mlp-3-2", torch=0.01), remark="a remark")
    text = page([first, second], [FIGURE], ENVIRONMENT)
    assert (
        "Milliseconds per training step on one thread, float32: Abacus 9000 (AVX-512), cores: 2, "
        "onnxruntime 1.32.0, torch 2.13.0, jax 0.10.2; GFLOP/s of a matrix product: onnxruntime "
        "97, torch 102." in text
    )
    assert f"medians of 41 rounds (`{COMMAND} --only training`)" in text
    assert "| LeNet | 32 | SGD | 2.00 | 3.00 | **2.50** | 1.25 | 1.25–1.25 | 1.00 |" in text
    short = "| perceptron 3-2 | 32 | SGD | 0.012 | **0.010** | – | 0.81, short of 1 |"
    assert short in text and "perceptron 3-2: a remark." in text
    assert "| gpt adamw B8 | peak, MB | 200 | 150 | 0.75, short of 1 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows[:4]}) == 1


def test_the_page_has_a_column_of_native_kernels_where_they_were_measured() -> None:
    native = row(2.0, torch=3.0)
    sides = {OURS: native.ours, AGAIN: native.sides[AGAIN]}
    sides |= {NATIVE: side(1.0, 0.5, 1.0), "torch": side(3.0, 1.5, 3.0)}
    text = page([replace(native, sides=sides)], [], ENVIRONMENT)
    assert "| nncompile | native | torch | ratio | native ratio |" in text
    assert "| 2.00 | 1.00 | **3.00** | 1.50 | 3.00 |" in text


def test_a_busy_core_is_told_with_the_ratio_of_processor_times() -> None:
    calm = row(2.0, torch=3.0)
    peer = replace(calm.sides["torch"], processor_ratio=1.1)
    ours = replace(calm.ours, processor_milliseconds=1.7)
    busy = replace(calm, sides={**calm.sides, OURS: ours, "torch": peer})
    assert busy.is_busy and busy.processor_ratio == 1.1 and not calm.is_busy
    assert not replace(busy, threads=2).is_busy
    text = page([busy], [], ENVIRONMENT)
    assert "| ratio | quartiles | by CPU time | A/A |" in text and "| 1.10 | 1.00 |" in text
    assert "CPU time tells more: LeNet." in text
    low = replace(peer, processor_ratio=0.9)  # and decides what is short
    assert not busy.is_short and replace(busy, sides={**busy.sides, "torch": low}).is_short
    assert document.as_row(document.as_json(busy)) == busy


def test_numbers_have_three_digits_that_count_and_every_workload_has_a_title() -> None:
    assert [number(x) for x in (0.0423, 1.234, 12.34, 123.4)] == ["0.042", "1.23", "12.3", "123"]
    titles = [title_of(name) for name in dict.fromkeys(w.name for w in WORKLOADS)]
    assert len(set(titles)) == len(titles) and not any(t.startswith("mlp") for t in titles)


def test_a_further_run_takes_the_place_of_its_own_rows_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "run.json", [row(1.0), row(2.0, workload="vgg")], (FIGURE,))
    joined = document.joined(
        document.read(file),
        {"rows": [document.as_json(row(3.0))], "fit": [{"data": "arrays", "added": 1.0}]},
    )
    assert [r.ours.milliseconds for r in document.rows_of(joined)] == [3.0, 2.0]
    assert document.figures_of(joined) == [FIGURE] and joined["environment"] == ENVIRONMENT
    assert len(document.joined(joined, joined)["fit"]) == 1


def test_what_falls_short_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    good = written(tmp_path / "good.json", [row(1.0, torch=2.0)])
    bad = written(tmp_path / "bad.json", [row(2.0, torch=1.0), row(1.0, torch=2.0)], (FIGURE,))
    assert called("--read", str(good), "--check").exit_code == 0
    done = called("--read", str(bad), "--check")
    assert done.exit_code == 1
    below = done.output.partition("below target:")[2].split("\n")
    assert [line.strip() for line in below if line.strip()] == [
        "training lenet sgd B32, threads: 1",
        "memory gpt adamw B8: peak",
    ]
    assert called("--read", str(bad)).exit_code == 0
    parts = {
        "fit": [{"data": "arrays", "added": 26.0, "target": 25.0}],
        "imported": [{"workload": "encoder", "source": "torch", "ratio": 1.1, "target": 1.03}],
        "optimize": [{"file": "a.onnx", "is_behind": True}],
    }
    assert below_target(parts) == ["fit, arrays", "imported encoder by torch", "optimize a.onnx"]
    wrong = {"wrong": [{"key": "training gpt adamw B8", "what": "jax.jit differs"}]}
    assert below_target(wrong) == ["training gpt adamw B8: jax.jit differs"]


def test_a_row_whose_sides_differ_does_not_end_the_run() -> None:
    class Differing:
        def training(self, workload: Any) -> Row:
            if workload.name == "tiny":
                raise AssertionError("tiny: jax.jit differs by 0.1, more than 0.01")
            return row(1.0, torch=2.0)

    bench: Any = Differing()
    rows, wrong = stepped(bench, [("training", w) for w in WORKLOADS[:2]])
    assert len(rows) == 1
    assert wrong == [
        {"key": "training tiny sgd B1", "what": "tiny: jax.jit differs by 0.1, more than 0.01"}
    ]


def test_runs_are_compared_and_written_as_markdown(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", [row(2.0, torch=2.0)])
    new = written(tmp_path / "new.json", [row(1.0, torch=2.0)])
    markdown = tmp_path / "table.md"
    done = called("--read", str(new), "--compare", str(old), "--markdown", str(markdown))
    assert done.exit_code == 0, done.output
    assert "better: 1, worse: 0, noise: 0" in done.output and "0.50" in done.output
    assert "| LeNet | 32 | SGD | 1.00 | **2.00** | 2.00 |" in markdown.read_text("utf-8")


def test_wrong_names_and_files_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"rows": [{"kind": "training"}]}))
    for arguments, message in [
        (("--peers", "theano"), "no peer is called 'theano'"),
        (("--only", "alexnet"), "no row has 'alexnet'"),
        (("--read", str(broken)), "is not what --json writes"),
        (("--compare", str(tmp_path / "none.json")), "No such file"),
    ]:
        done = called(*arguments)
        assert done.exit_code == 2
        told = " ".join(done.output.replace("│", " ").split())
        assert message.replace(" ", "") in told.replace(" ", ""), (message, told)


def test_parts_of_names_choose_rows_and_peers() -> None:
    names = [name for name, _, _ in named_rows()]
    assert len(set(names)) == len(names)
    assert sum("inference gpt " in name for name in names) == 1
    assert {n for n in names if "adamw B32" in n} == {"training mlp-784-256-128-10 adamw B32"}
    assert [p.name for p in chosen_peers("fused,jax")] == ["torch fused", "jax.jit"]
    assert len(chosen_peers("")) == 6


def test_a_run_writes_its_rows_beside_those_of_before(tmp_path: Path) -> None:
    file = written(tmp_path / "run.json", [row(1.0, torch=2.0)])
    brief = ("--only", "training tiny", "--peers", "torch eager", "--seconds", "0", "--rounds", "2")
    done = called(*brief, "--json", str(file), "--append")
    assert done.exit_code == 0, done.output
    found = {r.workload: r for r in document.rows_of(document.read(file))}
    assert set(found) == {"lenet", "tiny"} and found["tiny"].rounds == 2
    kept = document.read(file)["environment"]
    assert kept["threads"] == 1 and kept["versions"]["onnxruntime"]


def test_the_machine_multiplies_matrices_at_a_speed() -> None:
    found = environment(1)
    assert set(found["gflops"]) == {"onnxruntime", "numpy"}
    assert all(0.1 < speed < 10_000 for speed in found["gflops"].values())
    assert found["processor"] and found["versions"]["onnxruntime"]
