"""The graph: sizes, types, values, their printer and their interpreter."""
