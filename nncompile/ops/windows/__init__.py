"""The geometry of windows that slide over the axes of space."""
