"""The page of all public names, made of their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any, is_typeddict

import dsl
import nncompile
import nncompile.train
import nncompile.verify
from dsl.foreign_names import FOREIGN_NAMES
from dsl.initializers import VarianceScaling
from nncompile.diagnostics.hints import EXPLANATIONS
from nncompile.diagnostics.hints import FOREIGN_NAMES as OPTIONS
from nncompile.elementwise.formula import Formula
from nncompile.ir.types import DType

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"

# Which modules a group is of, by the beginnings of their names; the first that fits counts.
GROUPS: dict[str, tuple[str, ...]] = {
    "Models": (
        *("dsl.declare", "dsl.layers.base"),
        *("nncompile.program.model", "nncompile.ir.op", "nncompile.ir.types"),
        "nncompile.program.file_options",
    ),
    "Convolution and pooling layers": (
        *("dsl.layers.convolution", "dsl.layers.pooling", "dsl.layers.patches"),
    ),
    "Normalization layers": ("dsl.layers.normalization",),
    "Preprocessing layers": ("dsl.layers.preprocessing",),
    "Noise and augmentation": ("dsl.layers.noise", "dsl.augmentation"),
    "Layers": ("dsl.layers",),
    "Activations": ("dsl.activations",),
    "Losses": ("dsl.losses",),
    "Metrics": ("dsl.metrics", "nncompile.ops.reduction.totals"),
    "Penalties and bounds": ("dsl.regularizers",),
    "Initializers": ("dsl.initializers",),
    "Learning rate schedules": (
        *("nncompile.optim.curves", "nncompile.optim.schedules"),
        *("nncompile.optim.plateau", "nncompile.optim.adjustable"),
    ),
    "Optimizers": ("nncompile.optim",),
    "Recipes": (
        "dsl.quantization",
        "nncompile.program.loss_scaling",
        "nncompile.program.recipe",
        "nncompile.program.updates",
        "nncompile.autodiff.checkpointing",
    ),
    "Gradients": ("nncompile.autodiff", "nncompile.ops.core.annotations"),
    "Functions of tensors": (
        *("nncompile.ops", "nncompile.ir.basic"),
        *("nncompile.ir.broadcasting", "nncompile.ir.barriers"),
    ),
    "Elementwise functions": ("nncompile.elementwise",),
}

INTRODUCTION = """# Reference

Every public name, with the first sentence of its documentation; `help(name)` has all of it. The
test suite makes this page of the code.

- [What it is called elsewhere](#what-it-is-called-elsewhere): names of torch and Keras.
- [`from dsl import …`](#from-dsl-import): what model files are written with.
- [`from nncompile import …`](#from-nncompile-import): compiling, running, exporting.
- [`from nncompile.train import …`](#from-nncompile-train-import): what watches a training.
"""


def text() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "## What it is called elsewhere {#what-it-is-called-elsewhere}", ""]
    lines += ["| torch, Keras | here |", "|---|---|"]
    lines += [
        f"| `{name}` | {_coded(here)} |"
        for name, here in sorted(FOREIGN_NAMES.items(), key=lambda item: item[0].lower())
    ]
    lines += ["", "Options of layers and recipes:", "", "| torch, Keras | here |", "|---|---|"]
    options = {name: ", ".join(f"`{x}`" for x in here) for name, here in OPTIONS.items()}
    options |= {name: text for name, text in EXPLANATIONS.items() if name not in options}
    lines += [f"| `{name}` | {options[name]} |" for name in sorted(options)]
    lines += ["", "## from dsl import … {#from-dsl-import}", ""]
    grouped = names_by_group()
    for group in GROUPS:
        lines += [f"### {group}", "", *_table(dsl, grouped[group]), ""]
    lines += ["## from nncompile import … {#from-nncompile-import}", ""]
    lines += _table(nncompile, nncompile.__all__)
    lines += ["", "## from nncompile.train import … {#from-nncompile-train-import}", ""]
    lines += _table(nncompile.train, nncompile.train.__all__)
    return "\n".join(lines) + "\n"


def names_by_group() -> dict[str, list[str]]:
    """The public names of `dsl` in their groups. Raises `LookupError` for one that has none."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in sorted({*dsl.__all__, *dsl.BUILTINS}, key=lambda name: (name.lower(), name)):
        module = _module(getattr(dsl, name))
        group = next((g for g, starts in GROUPS.items() if module.startswith(starts)), None)
        if group is None:
            raise LookupError(f"{name} of {module} is in no group of the reference page")
        found[group].append(name)
    return found


def _module(thing: Any) -> str:
    module: str = getattr(thing, "__module__", "") or type(thing).__module__
    return module


def _table(package: Any, names: list[str]) -> list[str]:
    rows = [f"| `{signature(n, getattr(package, n))}` | {sentence(package, n)} |" for n in names]
    return ["| name | |", "|---|---|", *rows]


def signature(name: str, thing: Any) -> str:
    """The name with its parameters and their defaults, without types."""
    if isinstance(thing, DType) or not callable(thing) or _is_error(thing):
        return name
    if isinstance(thing, Formula):
        thing = thing.__wrapped__ if hasattr(thing, "__wrapped__") else thing
    if inspect.isclass(thing) and thing.__init__ is object.__init__:
        return name
    if isinstance(thing, VarianceScaling) or is_typeddict(thing):
        return name
    shown = []
    parameters = list(inspect.signature(thing).parameters.values())
    for i, p in enumerate(parameters):
        if p.kind is p.KEYWORD_ONLY and not any(
            q.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL) for q in parameters[:i]
        ):
            shown.append("*")
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        shown.append(
            f"{star}{p.name}" + ("" if p.default is p.empty else f"={_default(p.default)}")
        )
    return f"{name}({', '.join(shown)})".replace("|", "\\|")


def _default(value: Any) -> str:
    if callable(value) and hasattr(value, "__name__") and "<" not in value.__name__:
        return str(value.__name__)
    if isinstance(value, DType):
        return str(value)
    if isinstance(value, Formula):
        return value.name
    written = repr(value)
    return "…" if "<" in written or " at 0x" in written or len(written) > 40 else written


def _is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def sentence(package: Any, name: str) -> str:
    """The first sentence of its documentation, or of that of what it is an instance of."""
    thing = getattr(package, name)
    if isinstance(thing, DType):
        return f'The element type {name}; `{name}["batch", 4]` is a type of tensors.'
    if getattr(thing, "__module__", "") == "typing" or typing.get_origin(thing) is not None:
        return "A type."
    if isinstance(thing, VarianceScaling):
        return f"`{thing}`."
    document = inspect.getdoc(thing) or ""
    paragraph = " ".join(document.split("\n\n")[0].split())
    found = re.match(
        r"(.*?[.:])(?<!e\.g\.)(?<!i\.e\.)(?<!al\.)(?<![ (][A-Z]\.)(\s+[A-Z`‘“(]|$)", paragraph
    )
    first = (found.group(1) if found else paragraph).rstrip(":.")
    return _escaped(first) + "."


def _escaped(line: str) -> str:
    """Markdown that stays what it is, in a cell of a table."""
    parts = re.split(r"(`[^`]*`)", line)
    safe = [p if p.startswith("`") else p.replace("*", r"\*").replace("_", r"\_") for p in parts]
    return "".join(safe).replace("|", "\\|")


def _coded(here: str) -> str:
    """What the table of names says, its code marked: all up to a comma and words."""
    code, comma, rest = here.partition("), ")
    if comma:
        return f"`{code})`, {rest}"
    before, colon, code = here.partition(": ")
    if colon:
        return f"{before}: `{code}`"
    return f"`{here}`"
