"""Fixtures for all tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def torchscript() -> SimpleNamespace:
    """The TorchScript backend and torch; tests that use it need torch installed."""
    torch = pytest.importorskip("torch")
    backend = pytest.importorskip("nncompile.backends.torchscript")
    return SimpleNamespace(torch=torch, backend=backend, to_script=backend.to_script)
