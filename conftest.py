"""Collection without torch: what needs it is left out of the doctests."""

from importlib.util import find_spec

TORCH = ["nncompile/backends/torchscript*", "tests/fuzzing/torch_checks.py"]
collect_ignore_glob = [] if find_spec("torch") else TORCH
