"""Gradients: reverse mode over the graph, guarded masks, and checkpointing."""
