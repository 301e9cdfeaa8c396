"""Python's garbage collector is paused, and resumes."""

from __future__ import annotations

import gc

import pytest

from nncompile.ir import gc_pause
from nncompile.ir.gc_pause import kept, without_collection


@without_collection
def is_searching(fail: bool = False) -> bool:
    if fail:
        raise ValueError
    return gc.isenabled()


def test_it_is_paused_inside_and_goes_on_after() -> None:
    assert not is_searching()
    assert gc.isenabled()
    with pytest.raises(ValueError):
        is_searching(fail=True)
    assert gc.isenabled()


def test_who_switched_it_off_finds_it_so() -> None:
    gc.disable()
    try:
        assert not is_searching()
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("frozen", [0, 3])
def test_what_is_kept_is_old_from_the_beginning(
    frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what somebody froze stays frozen, which is asked until it is so: it takes long then."""
    calls: list[str] = []
    asked: list[bool] = []
    monkeypatch.setattr(gc_pause, "_frozen", [])
    monkeypatch.setattr(gc, "get_freeze_count", lambda: asked.append(True) or frozen)
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: calls.append("unfreeze"))
    for _ in range(2):
        with kept():
            assert not gc.isenabled()
        assert gc.isenabled()
    assert calls == ([] if frozen else ["freeze", "unfreeze"] * 2)
    assert len(asked) == (1 if frozen else 2)
