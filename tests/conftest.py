"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile.compiler.cache_place import VARIABLE
from tests.command_line import GOOD, succeeds, written
from tests.durations import SELECTIONS, durations, test_of

CACHE = pytest.StashKey[TemporaryDirectory[str]]()
# What forks, or looks through all there is in memory, does so while a process is small: later that
# takes ten times as long.
SMALL = ("/test_faults", "/test_child", "/test_leaks", "/test_torch_files")

# A shell that runs the tests in the background lets them, and what they start, ignore Ctrl-C, and
# nohup the end of the session.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples in every run, and none that fails because the machine is busy.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """What tests compile is in a cache of this session alone, which all of its processes share:
    sources that were changed are other keys."""
    if not hasattr(config, "workerinput"):  # a worker has that of who started it
        config.stash[CACHE] = TemporaryDirectory(prefix="nncompile-tests-")
        os.environ[VARIABLE] = config.stash[CACHE].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Before it runs anything, hypothesis looks through all there is in memory: little as yet."""
    given(st.none())(lambda nothing: None)()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make quick` and `make test` leave out, as `tests.durations` says: what takes
    long, and of many cases most, unless they say it of themselves."""
    items.sort(key=lambda item: [name not in item.nodeid for name in SMALL])
    seconds = durations()
    number: Counter[str] = Counter()
    for item in items:
        test = test_of(item.nodeid)
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.slow)
        for selection in SELECTIONS:
            if not selection.takes(seconds.get(test, 0.0), number[test]):
                item.add_marker(selection.left_out)
        if not item.get_closest_marker("choosing"):
            number[test] += 1


@pytest.fixture(scope="session")
def torch() -> Any:
    """torch; skips the test where it is not installed."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def torchscript(torch: Any) -> SimpleNamespace:
    """The TorchScript backend and torch; skips the test where torch is not installed."""
    backend = pytest.importorskip("nncompile.backends.torchscript")
    return SimpleNamespace(torch=torch, backend=backend, to_script=backend.to_script)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """The model file `GOOD`, in a directory of its own."""
    return written(tmp_path, GOOD)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished training of `GOOD`, to be read only."""
    directory = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        leave_pages_unmeasured(patched)
        succeeds("train", written(directory, GOOD), "--output", directory / "runs")
    return directory / "runs"


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have pages without measurements: to compile those takes longer than the training of a
    small model. The tests of pages have them."""
    leave_pages_unmeasured(monkeypatch)


def leave_pages_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nncompile.report.run_page.RunPage._measure", lambda *_: None)
