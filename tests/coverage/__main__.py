"""`python -m tests.coverage NAME …` measures these systems, and writes their bounds and rows.

Without a name it does so for all."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch

from nncompile.backends import torchscript
from nncompile.diagnostics.errors import did_you_mean
from tests.coverage.systems import SYSTEMS
from tests.coverage.table import write


def main(names: list[str]) -> None:
    known = [system.name for system in SYSTEMS]
    for name in names:
        if name not in known:
            sys.exit(f"no system is called {name!r}; {did_you_mean(name, known, 'see SYSTEMS')}")
    scripted = SimpleNamespace(torch=torch, backend=torchscript, to_script=torchscript.to_script)
    for line in write(SYSTEMS, scripted, names or known):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
