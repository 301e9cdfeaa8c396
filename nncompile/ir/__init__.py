"""The graph: sizes, types, values, the ops that all others are built with, printer, interpreter."""
