"""The pass that makes naive spellings stable. `grad` does the same before it differentiates."""

from __future__ import annotations

from nncompile.stabilise import stabilise

__all__ = ["stabilise"]
