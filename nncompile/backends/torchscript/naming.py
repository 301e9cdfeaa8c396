"""Names of tensors in files of torch: those that it cannot load get others."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable

import torch

from nncompile.ir.names import unused_name

# What a module has itself, or a scripted one; and what the code in a file would not find.
_OF_A_MODULE = frozenset({*dir(torch.nn.Module()), *dir(torch.jit.RecursiveScriptModule)})
_TAKEN = _OF_A_MODULE | {"_c", "_concrete_type", "_initializing", "nncompile", "torch"}
_OF_A_GRAPH = frozenset(dir(torch.fx.GraphModule))


def loadable(
    paths: Iterable[str], own: Collection[str] = (), below: str = "", exported: bool = False
) -> dict[str, str]:
    """Where tensors are held that torch could not load from a file under their own path: a part
    that is a word of Python, or that every module has, or that is not ASCII, gets a `_` behind it
    (and a number where another has that name). Other paths are left out.

    `own` are names of the root that are taken, `below` the path of a module that all are within.
    An `exported` program has no methods, but names of its own at the root.
    """
    paths = list(paths)
    parts = {path: path.split(".") for path in paths}
    used: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for depth, part in enumerate(parts[path]):
            used.setdefault(tuple(parts[path][:depth]), set()).add(part)
    renamed: dict[tuple[str, ...], str] = {}
    places = {}
    for path in paths:
        held = []
        for depth, part in enumerate(parts[path]):
            key = tuple(parts[path][: depth + 1])
            if key not in renamed:
                taken = _TAKEN | set(own) if depth == 0 and not below else _TAKEN
                if exported and depth == 0:
                    taken = taken | _OF_A_GRAPH
                renamed[key] = _part(part, taken, used[key[:-1]])
            held.append(renamed[key])
        place = ".".join([below, *held] if below else held)
        if place != path:
            places[path] = place
    return places


def _part(part: str, taken: Collection[str], used: set[str]) -> str:
    """The part, or what it is called in a file: that is `used` then, too."""
    if part.isascii() and part not in taken and not keyword.iskeyword(part):
        return part
    plain = re.sub(r"\W", "_", part, flags=re.ASCII)
    name = unused_name(f"{plain}_", used, "", 2)
    used.add(name)
    return name
