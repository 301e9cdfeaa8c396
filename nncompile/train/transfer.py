"""Parameters of one model for another: what fits by name and shape, and a report of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.types import Array, check_unmasked

Renaming = Mapping[str, str] | Callable[[str], str | None]
_SHOWN = 20


@dataclass(frozen=True)
class Transfer:
    """What a transfer did: paths that were `loaded`; paths of the target that the source lacks
    (`missing`), of the source that the target has not (`unused`), and those of both where the
    types differ (`different`)."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all of both sides fitted."""
        return not (self.missing or self.unused or self.different)

    def __str__(self) -> str:
        counts = [f"{len(self.loaded)} loaded"]
        for name in ("missing", "unused", "different"):
            paths = getattr(self, name)
            counts += [f"{len(paths)} {name} ({', '.join(paths)})"] if paths else []
        return "; ".join(counts)


def transfer(
    source: Mapping[str, Array],
    target: Mapping[str, Array],
    rename: Renaming | None = None,
    strict: bool = False,
) -> tuple[dict[str, Array], Transfer]:
    """The arrays of `source` that fit into `target`, by the target's paths, and what happened.

    `rename` gives the target's path of a source's: a dict from the beginnings of paths (the
    longest that fits is replaced), or a function, which may return None to leave one out. An array
    is taken where shape and element type agree. Raises `ModelError` where nothing fits, where two
    get one name, and, if `strict`, where anything is left over on either side.
    """
    renamed: dict[str, Array] = {}
    dropped: list[str] = []
    for path, x in source.items():
        new = _renamed(path, rename)
        if new is None:
            dropped.append(path)
        elif new in renamed:
            raise ModelError(f"rename gives two arrays the path {new!r}", rows=[("one is", path)])
        else:
            check_unmasked(x, path, ModelError)
            renamed[new] = np.asarray(x)
    fitting = {
        path: x
        for path, x in renamed.items()
        if path in target and x.shape == target[path].shape and x.dtype == target[path].dtype
    }
    report = Transfer(
        loaded=tuple(fitting),
        missing=tuple(path for path in target if path not in renamed),
        unused=(*dropped, *(path for path in renamed if path not in target)),
        different=tuple(path for path in renamed if path in target and path not in fitting),
    )
    if not fitting or (strict and not report.whole):
        rows = [("missing", p, _shown(target[p])) for p in report.missing]
        rows += [("unused", p, _shown(renamed[p]) if p in renamed else "") for p in report.unused]
        rows += [(p, _shown(target[p]), f"got {_shown(renamed[p])}") for p in report.different]
        raise ModelError(
            f"the parameters do not fit: {len(report.loaded)} loaded, "
            f"{len(report.missing)} missing, {len(report.unused)} unused, "
            f"{len(report.different)} of another type",
            rows=rows[:_SHOWN],
            hint='rename={"encoder.": "backbone."} replaces the beginnings of paths'
            + ("; strict=False takes what fits" if fitting else ""),
        )
    return fitting, report


def _renamed(path: str, rename: Renaming | None) -> str | None:
    if rename is None:
        return path
    if callable(rename):
        return rename(path)
    begins = [begin for begin in rename if path.startswith(begin)]
    if not begins:
        return path
    longest = max(begins, key=len)
    return rename[longest] + path[len(longest) :]


def _shown(x: Array) -> str:
    return f"{x.dtype}{list(x.shape)}"
