"""What a sweep tries: values and ranges as they are written, grids, and draws."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from nncompile.cli.proposals import Listed, Optuna
from nncompile.cli.trials import Record, Trial, logged, run_name
from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.program.option_values import FileOption
from nncompile.program.search_space import Range, draws, grid, label, parsed, spaces

OPTIONS = {
    x.name: x
    for x in (
        FileOption("width", 8, 8, low=1, high=64),
        FileOption("lr", 0.1, 0.1, low=1e-5, high=1.0, log=True),
        FileOption("kind", "a", "a", choices=("a", "b")),
        FileOption("sizes", (3, 4), (3, 4)),
        FileOption("deep", False, False),
    )
}


@pytest.mark.parametrize(
    ("name", "text", "space"),
    [
        ("width", "8,16", (8, 16)),
        ("width", "8..16", Range(8, 16)),
        ("width", "log:1..64", Range(1, 64, True)),
        ("lr", "1e-2,1", (0.01, 1.0)),
        ("lr", "log:1e-4..1e-1", Range(1e-4, 0.1, True)),
        ("kind", "b", ("b",)),
        ("sizes", "(1,2),(3,)", ((1, 2), (3,))),
        ("deep", "on,off", (True, False)),
    ],
)
def test_a_space_is_parsed(name: str, text: str, space: object) -> None:
    assert parsed(OPTIONS[name], text) == space


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("width", "", "has no values"),
        ("width", "0,8", "from 1 to 64, got 0"),
        ("width", "8,8", "the value 8 twice"),
        ("width", "9..8", "is empty"),
        ("width", "8..100", "from 1 to 64, got 100"),
        ("width", "log:8", "is no range"),
        ("kind", "a..b", "has no range: it is a or b"),
        ("kind", "c", "kind must be a or b"),
        ("lr", "0.1..x", "lr must be a number, got 'x'"),
    ],
)
def test_a_wrong_space_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parsed(OPTIONS[name], text)


def test_a_range_by_ratio_is_above_zero() -> None:
    with pytest.raises(ModelError, match="above 0"):
        parsed(FileOption("x", 0.0, 0.0), "log:-1..1")


def test_spaces_are_given_or_declared() -> None:
    assert spaces(OPTIONS, {"width": "1,2"}, "net.py") == {"width": (1, 2)}
    assert spaces(OPTIONS, {}, "net.py") == {
        "width": Range(1, 64),
        "lr": Range(1e-5, 1.0, True),
        "kind": ("a", "b"),
    }
    with pytest.raises(ModelError, match=r"no option 'widht'(.|\n)*did you mean 'width'"):
        spaces(OPTIONS, {"widht": "1"}, "net.py")
    with pytest.raises(ModelError, match="declares no option with choices"):
        spaces({"deep": OPTIONS["deep"]}, {}, "net.py")


def test_a_grid_has_every_combination() -> None:
    found = grid({"a": (1, 2), "b": ("x", "y")})
    assert list(map(label, found)) == ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]
    with pytest.raises(ModelError, match="b is a range"):
        grid({"a": (1, 2), "b": Range(0, 1)})


def test_draws_are_those_of_the_seed_and_within_bounds() -> None:
    space = {"n": Range(2, 5), "x": Range(0.0, 1.0), "r": Range(1e-4, 1e-1, True), "k": ("a", "b")}
    taken = list(itertools.islice(draws(space, 3), 200))
    assert taken[:7] == list(itertools.islice(draws(space, 3), 7))
    assert taken[:7] != list(itertools.islice(draws(space, 4), 7))
    assert {x["n"] for x in taken} == {2, 3, 4, 5}
    assert {x["k"] for x in taken} == {"a", "b"}
    assert all(0 <= x["x"] <= 1 and 1e-4 <= x["r"] <= 1e-1 for x in taken)
    assert 10**-2.7 < np.median([x["r"] for x in taken]) < 10**-2.3  # by ratio: near 10^-2.5
    assert len({label(x) for x in taken}) == 200


def test_draws_of_few_values_end() -> None:
    assert sorted(x["n"] for x in draws({"n": Range(1, 4)}, 0)) == [1, 2, 3, 4]


def test_what_is_done_is_not_listed_again() -> None:
    done = [Trial({"a": 1}, "finished", 0.5)]
    listed = Listed(grid({"a": (1, 2, 3)}), 10, done)
    assert listed.count == 3
    assert [listed.next(), listed.next(), listed.next()] == [{"a": 2}, {"a": 3}, None]


def test_optuna_comes_to_what_is_best() -> None:
    pytest.importorskip("optuna")
    space = {"x": Range(-1.0, 1.0), "k": ((1,), (2,))}
    study = Optuna(space, 40, "min", 0, [])
    tried = []
    while (settings := study.next()) is not None:
        value = (settings["x"] - 0.5) ** 2 + settings["k"][0]
        assert study.should_prune(settings, 1, value) is False  # the first epoch is a warm-up
        tried.append(Trial(settings, "finished", value, 1))
        study.tell(tried[-1])
    assert len(tried) == 40
    late = tried[-10:]
    assert np.median([abs(t.settings["x"] - 0.5) for t in late]) < 0.25
    assert sum(t.settings["k"] == (1,) for t in late) >= 6
    going_on = Optuna(space, 42, "min", 0, tried)
    assert [going_on.next() is None for _ in range(3)] == [False, False, True]


def test_optuna_prunes_what_is_worse_than_the_median() -> None:
    pytest.importorskip("optuna")
    study = Optuna({"x": Range(0, 10**6)}, 20, "max", 0, [])
    verdicts = []
    for quality in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.1):
        settings = study.next()
        assert settings is not None
        verdicts.append([study.should_prune(settings, epoch, quality) for epoch in (1, 2, 3)][-1])
        study.tell(Trial(settings, "finished", quality, 3))
    assert verdicts == [False] * 6 + [True]


def test_without_optuna_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("nncompile.diagnostics.extras.importlib.import_module", missing)
    with pytest.raises(ModelError, match=r"needs optuna(.|\n)*pip install(.|\n)*--random N"):
        Optuna({"x": (1, 2)}, 3, "min", 0, [])


def test_names_of_runs_are_readable_and_different() -> None:
    assert run_name({"width": 8, "lr": 0.01}) == "width=8,lr=0.01"
    awkward = [{"path": "a/b"}, {"path": "a_b"}, {"n": (1,)}, {"path": "x" * 200}, {"path": ".."}]
    names = [run_name(x) for x in awkward]
    assert len({*names}) == len(names)
    assert all("/" not in name and len(name) <= 80 for name in names)


def test_a_record_is_read_back_and_bound_to_its_sweep(tmp_path: Path) -> None:
    record = Record.opened(tmp_path, {"file": "abc", "epochs": 3})
    trial = Trial({"sizes": (1, 2), "lr": 0.5}, "finished", 0.25, 2, 1.5)
    record.trials[trial.run] = trial
    record.write()
    again = Record.opened(tmp_path, {"file": "abc", "epochs": 3})
    assert list(again.trials) == [trial.run]
    assert label(again.trials[trial.run].settings) == label({"sizes": (1, 2), "lr": 0.5})
    with pytest.raises(FileError, match=r"another sweep(.|\n)*epochs  was 3  is 4"):
        Record.opened(tmp_path, {"file": "abc", "epochs": 4})
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(FileError, match="is not what a sweep writes"):
        Record.opened(tmp_path, {})


def test_an_incomplete_line_of_a_log_waits(tmp_path: Path) -> None:
    assert logged(tmp_path, "val_loss") == []
    (tmp_path / "log.csv").write_text("epoch,step,val_loss\n1,5,0.5\n2,10,nan\n3,15,0.2")
    assert [epoch for epoch, _ in logged(tmp_path, "val_loss")] == [1, 2]
    assert logged(tmp_path, "loss") == []
