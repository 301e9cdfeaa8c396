"""Writes a small project to begin with."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.shared import out, print_files
from nncompile.diagnostics.errors import FileError
from nncompile.runtime import make_directory

# By the template, the commands that its README shows.
NEXT = {
    "tabular": (
        "nncompile train tabular.py",
        "nncompile sweep tabular.py --random 20 rate=log:1e-4..1e-1 width=16,32,64",
        "nncompile evaluate runs/leaving/latest",
    ),
    "image": (
        "nncompile train image.py",
        "nncompile train image.py --set channels=32 epochs=10",
        "nncompile evaluate runs/shapes/latest",
    ),
    "text": (
        "nncompile train text.py",
        "nncompile sweep text.py --grid width=16,32,64 layers=1,2",
        "nncompile evaluate runs/praise/latest",
    ),
    "series": (
        "nncompile train series.py",
        "nncompile train series.py --set past=72 ahead=24",
        "nncompile evaluate runs/forecaster/latest",
    ),
    "gan": (
        "nncompile train gan.py --model gan",
        "nncompile compile gan.py --model generator -o generator.onnx --params runs/gan/latest",
        "nncompile show gan.py --model gan --plot gan.svg",
    ),
    "finetune": (
        "nncompile train finetune.py --model pretraining",
        "nncompile evaluate runs/which/latest",
        "python finetune.py runs/which/latest/checkpoint.safetensors",
    ),
}
Template = StrEnum("Template", [*NEXT])  # type: ignore[misc]  # its members are known when it runs


def init(
    template: Annotated[Template, typer.Argument(metavar="TEMPLATE", help=", ".join(NEXT))],
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to; TEMPLATE by default.")
    ] = None,
) -> Outcome:
    """Write a small project to begin with.

    A model file with data, recipe and options that trains at once, and a README with the next
    commands. No existing file is replaced.

    \b
    Examples:
      nncompile init tabular
      nncompile init image my-project
    """
    name = str(template.value)
    place = Path(name) if directory is None else directory
    source = (files("nncompile") / "templates" / f"{name}.py").read_text(encoding="utf-8")
    texts = {f"{name}.py": source, "README.md": readme(name, source)}
    there = [file for file in texts if os.path.lexists(place / file)]
    if there:
        raise FileError(
            f"{place} has {' and '.join(there)} already",
            hint=f"write into another directory: nncompile init {name} DIR",
        )
    make_directory(place)
    for file, text in texts.items():
        try:
            with (place / file).open("x", encoding="utf-8") as written:
                written.write(text)
        except OSError as error:
            raise FileError(f"cannot write {place / file}: {error.strerror}") from None
    print_files(*(place / file for file in texts))
    out.print("\nnext:" if os.path.samefile(place, ".") else f"\nnext, in {place}:")
    for line in NEXT[name]:
        out.print(f"  {line}")
    paths = [place / file for file in texts]
    return Outcome({"files": described_files(paths), "next": NEXT[name]})


def readme(name: str, source: str) -> str:
    """The README of a project: what the model file says of itself, and the next commands."""
    described = source.split('"""')[1].strip()
    title, _, rest = described.partition("\n")
    commands = "\n".join(NEXT[name])
    return f"""# {title}

{rest.strip()}

```
{commands}
```

`nncompile show {name}.py --options` lists what `--set NAME=VALUE` changes.
"""
