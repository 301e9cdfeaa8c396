"""Ops that a native kernel may compute where it is installed, see docs/native.md."""

from __future__ import annotations

from typing import Any

DOMAIN = "nncompile.kernels"
"""The domain of the kernels' calls, of the functions that say what they mean, and of the library's
operators."""
FUNCTIONS_KEY = f"{DOMAIN}.functions"
"""The key of a model's metadata: which kernels it calls, and how many functions of each it has."""


class Kernel:
    """The call of a native kernel: its name in the domain `nncompile.kernels`, and attributes that
    say what the op's fields say: whole numbers, real numbers, texts and tuples of them."""

    def __init__(self, name: str, **attributes: Any) -> None:
        self.name = name
        self.attributes = attributes


class Native:
    """A base of ops that a native kernel may compute.

    In the file of a training step such an op is a call of the kernel by name; the file says what it
    means in standard operators, by the op's own lowering, for runtimes without the kernel.
    """

    def native(self, *types: Any) -> Kernel | None:
        """The kernel for arguments of these types, which are its inputs in their order; None where
        there is none, such as for other element types than float32."""
        return None
