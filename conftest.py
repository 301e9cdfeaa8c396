"""Collection without torch: the one package that needs it is left out of the doctests."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["nncompile/backends/torchscript*"]
