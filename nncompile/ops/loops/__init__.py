"""Loops over an axis: scan, its gradient, and what is computed with it."""
