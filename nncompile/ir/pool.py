"""Equal things as one object, for as long as somebody has it."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Reference(weakref.ref[T]):
    """A thing in a pool, and its key."""

    __slots__ = ("key",)
    key: Any


class Pool(Generic[T]):
    """Things by key, which it does not keep alive. A WeakValueDictionary does more at each look,
    for those who walk through it; this is looked into for every node that is made."""

    def __init__(self) -> None:
        self._references: dict[Any, _Reference[T]] = {}
        self._lock = threading.RLock()

    def get(self, key: Any) -> T | None:
        """The thing of that key; None where there is none."""
        reference = self._references.get(key)
        return None if reference is None else reference()

    def add(self, key: Any, thing: T) -> T:
        """The thing that is to have the key; that which has it, where another thread was first."""
        reference = _Reference(thing, self._forget)
        reference.key = key
        # Most are new: looked up and set in one step, which needs no lock.
        if self._references.setdefault(key, reference) is reference:
            return thing
        with self._lock:
            known = self.get(key)
            if known is not None:
                return known
            self._references[key] = reference  # in the place of one that is gone
            return thing

    def _forget(self, reference: Any) -> None:
        """Takes out a thing that is gone, if no other one has its key."""
        key = reference.key
        with self._lock:
            if self._references.get(key) is reference:
                del self._references[key]
