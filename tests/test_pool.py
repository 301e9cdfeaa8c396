"""Equal things are one object for as long as somebody has it, and leave nothing behind."""

from __future__ import annotations

from typing import Any

from nncompile.ir.pool import Pool


class Thing:
    """Can be watched."""


def test_a_thing_is_there_while_somebody_has_it() -> None:
    pool: Pool[Thing] = Pool()
    thing = Thing()
    assert pool.add("key", thing) is thing
    assert pool.get("key") is thing
    assert pool.add("key", Thing()) is thing
    del thing
    assert pool.get("key") is None
    assert not pool._references


def test_what_goes_leaves_alone_what_took_its_place() -> None:
    pool: Pool[Any] = Pool()
    old, new = Thing(), Thing()
    pool.add("key", old)
    gone = pool._references.pop("key")
    pool.add("key", new)
    pool._forget(gone)
    assert pool.get("key") is new
