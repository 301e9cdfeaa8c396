"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from tests.command_line import GOOD, succeeds, written

# The same examples in every run, and none that fails because the machine is busy.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def torchscript() -> SimpleNamespace:
    """The TorchScript backend and torch; tests that use it need torch installed."""
    torch = pytest.importorskip("torch")
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
    succeeds("train", written(directory, GOOD), "--output", directory / "runs")
    return directory / "runs"
