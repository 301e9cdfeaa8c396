"""Faults from outside, and what becomes of them: `python -m tests.faults KIND [COUNT]`."""
