"""What a training shows: a bar on a terminal, a table in a notebook, lines elsewhere; and no more
often than is seen."""

from __future__ import annotations

import io
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nncompile import Event, ModelError
from nncompile.optim import adam, cosine, plateau
from nncompile.program.recipe import minimize, training
from nncompile.train import display as showing
from nncompile.train import watchers
from nncompile.train.bar import Bar
from nncompile.train.display import Display, is_terminal
from nncompile.train.history import History
from nncompile.train.learning_curve import LearningCurve
from nncompile.train.monitor import TrainingWarning
from nncompile.train.rates import learning_rate
from tests.small_models import assert_same, data, perceptron, trainer


@pytest.fixture(autouse=True)
def _portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where native kernels are installed, a line says so first: see `tests/test_native.py`."""
    monkeypatch.setenv("NNCOMPILE_NATIVE", "0")


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_pipe_gets_a_line_for_each_epoch_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    history = trainer().fit(data(), epochs=3, validation_data=data(9, 1))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split("  loss")[0] for line in lines] == [
        "epoch 1  step  4",
        "epoch 2  step  8",
        "epoch 3  step 12",
    ]
    assert f"val_loss {history.last['val_loss']:.4f}" in lines[-1]


def test_nothing_is_shown_with_verbose_0(capsys: pytest.CaptureFixture[str]) -> None:
    trainer().fit(data(), epochs=2, verbose=0)
    assert capsys.readouterr() == ("", "")


def test_the_results_do_not_depend_on_what_is_shown() -> None:
    quiet, shown = trainer(), trainer()
    quiet.fit(data(), epochs=2, verbose=0)
    shown.fit(data(), epochs=2, callbacks=Display(1, Terminal()))
    assert_same(quiet.state, shown.state)


def test_a_terminal_gets_a_bar_and_some_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(watchers, "_TICK", 0.0)  # every step
    stream = Terminal()
    trainer().fit(data(), epochs=100, callbacks=Display(stream=stream))
    text = stream.getvalue()
    lines = [
        line for line in text.splitlines() if "step" in line and "loss" in line and " s" in line
    ]
    epochs = [int(line.partition("epoch")[2].split()[0]) for line in lines if "  step" in line]
    assert epochs[0] == 1 and epochs[-1] == 100 and 20 <= len(epochs) <= 22
    assert "/400" in text and "lr 0.01" in text and "steps/s" in text
    assert text.endswith("\x1b[2K")  # the bar is gone
    for thread in threading.enumerate():
        if "Refresh" in type(thread).__name__:
            thread.join(5)
            assert not thread.is_alive()


def test_a_bar_ends_with_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def interrupt(event: Event) -> None:
        if event.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer().fit(data(), epochs=100, callbacks=[Display(stream=stream), interrupt])
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is there again
    assert "epoch   4  step  16" in stream.getvalue()  # what was left out, the last that there is


def test_a_long_epoch_gets_lines_within(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(showing, "_LONG", -1.0)
    monkeypatch.setattr(watchers, "_TICK", 0.0)
    trainer().fit(data(), epochs=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[-1].startswith("epoch 1  step 4  loss")
    assert lines[1].startswith("epoch 1  step 2  loss") and "left" in lines[1]


def test_verbose_2_is_a_line_for_each_epoch_on_a_terminal_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Terminal()
    trainer().fit(data(), epochs=50, callbacks=Display(2, stream))
    assert stream.getvalue().count("\n") == 50 and "\x1b" not in stream.getvalue()
    for wrong in (3, "auto", -1):
        with pytest.raises(ModelError, match="verbose must be 0, 1 or 2"):
            trainer().fit(data(), verbose=wrong)


def test_a_closed_pipe_does_not_end_the_training() -> None:
    made = trainer()
    with pytest.warns(TrainingWarning, match="not shown any more: .*Broken pipe"):
        made.fit(data(), epochs=3, callbacks=Display(stream=Broken()))
    assert made.epoch == 3


def test_a_program_without_a_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    trainer().fit(data(), epochs=1)
    assert not is_terminal(None)  # type: ignore[arg-type]  # as sys.stderr may be


class Handle:
    """Of what a notebook shows."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def update(self, shown: Any) -> None:
        self.pages.append(shown._repr_html_())


def test_a_notebook_gets_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ZMQInteractiveShell: ...

    class Hosted(ZMQInteractiveShell): ...

    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    handle = Handle()
    ipython.get_ipython = Hosted  # type: ignore[attr-defined]
    display.display = lambda shown, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(watchers, "_TICK", 0.0)
    monkeypatch.setattr("nncompile.train.live_table._BETWEEN", 0.0)
    trainer().fit(data(), epochs=3)
    assert capsys.readouterr() == ("", "")
    assert len(handle.pages) == 3 * 4 + 3 + 1
    assert 'max="12" value="2"' in handle.pages[1] and "<table>" not in handle.pages[1]
    assert "<progress" not in handle.pages[-1] and handle.pages[-1].count("<tr>") == 5
    ipython.get_ipython = object  # type: ignore[attr-defined]  # in a terminal
    trainer().fit(data(), epochs=1)
    assert "epoch 1" in capsys.readouterr().err


def test_ticks_come_some_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = [0.0], [0]
    told: list[float] = []

    def looked() -> float:
        looks[0] += 1
        return clock[0]

    monkeypatch.setattr(watchers.time, "perf_counter", looked)

    class Ticking:
        """Listens to nothing else."""

        def on_tick(self, event: Event) -> None:
            told.append(clock[0])

    ticks = watchers.Ticks(watchers.Watchers(trainer(), Ticking()))
    for duration in [1e-4] * 50_000 + [0.04] * 500:
        clock[0] += duration
        if ticks.is_due():
            ticks.tell(1, {}, {})
    gaps = np.diff(told)
    fast = gaps[np.array(told[1:]) < 5]
    assert len(fast) >= 40 and fast.max() < 0.13  # of five seconds
    assert np.median(gaps[-50:]) == pytest.approx(0.12) and gaps.max() < 256 * 0.04
    assert looks[0] < 3000
    alone = watchers.Ticks(watchers.Watchers(trainer(), []))
    looks[0] = 0
    for _ in range(10):
        assert not alone.is_due()
    assert looks == [0]


def test_learning_rates_of_steps() -> None:
    net = perceptron()
    assert learning_rate(training(net, optimizer=adam(0.5)), 7) == 0.5
    curve = cosine(1.0, steps=10)
    assert learning_rate(training(net, optimizer=adam(curve)), 5) == pytest.approx(0.5)
    assert learning_rate(training(net, optimizer=adam(curve), accumulate=2), 11) == pytest.approx(
        0.5
    )
    plain = training(net, optimizer=adam(lambda step: 0.5 / (1 + step)))
    assert learning_rate(plain, 3) == pytest.approx(0.125)
    assert learning_rate(training(net, optimizer=adam(plateau(0.1))), 3) is None
    groups = minimize("loss", optimizer={"out.*": adam(0.1), "*": adam(0.2)})
    assert learning_rate(training(net, updates=groups), 0) is None


def test_a_rate_that_the_state_knows_is_shown() -> None:
    """That of a plateau, and one that was set; of several none."""

    def shown(optimizer: Any, rate: float | None) -> list[float | None]:
        ours, seen = trainer(optimizer=optimizer), []
        ours.learning_rate = rate
        ours.fit(data(), steps=2, callbacks=lambda event: seen.append(showing._rate(event)))
        return seen

    assert shown(adam(cosine(1.0, steps=10)), 0.0625) == [0.0625] * 3
    assert shown(adam(plateau(0.25)), None) == [0.25] * 3
    assert shown({"out.*": adam(0.1), "*": adam(0.2)}, 0.0625) == [None] * 3


def test_a_curve_is_drawn_at_most_every_few_seconds(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[int] = []

    def draw(history: History, *_: Any) -> None:
        drawn.append(len(history))

    monkeypatch.setattr("nncompile.train.learning_curve.learning_curves", draw)
    trainer().fit(data(), epochs=30, verbose=0, callbacks=LearningCurve(tmp_path / "curve.png"))
    assert drawn == [1, 30]
    often = LearningCurve(tmp_path / "curve.png", every=2, seconds=0)
    trainer().fit(data(), epochs=5, verbose=0, callbacks=often)
    assert drawn[2:] == [2, 4, 5]


def test_the_length_of_an_epoch_may_be_known_only_after_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generator has no length: the bar has no end until then."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(watchers, "_TICK", 0.0)
    examples = data()
    parts = [{n: x[part] for n, x in examples.items()} for part in np.split(np.arange(50), 5)]
    shown = Display(stream=Terminal())
    totals: list[int | None] = []
    monkeypatch.setattr(Bar, "moment", lambda _, moment: totals.append(moment.total))
    trainer().fit(lambda: iter(parts), epochs=2, callbacks=shown)
    assert totals == [None] * 5 + [10] * 5
    totals.clear()
    trainer().fit(parts, epochs=2, callbacks=shown)
    assert totals == [10] * 10
    totals.clear()
    trainer().fit(parts, epochs=2, steps=7, callbacks=shown)
    assert totals == [7] * 7
