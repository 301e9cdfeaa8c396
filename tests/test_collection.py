"""Python's garbage collector is paused, and resumes."""

from __future__ import annotations

import gc

import pytest

from nncompile.ir.gc_pause import without_collection


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
