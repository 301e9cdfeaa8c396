"""What a run is of: recipe, data, versions and command, as `config.json` has them."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CheckpointError, FileError, Row
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.reading import read_file
from nncompile.diagnostics.version import VERSION
from nncompile.program.recipe import Recipe
from nncompile.program.step import Step
from nncompile.train.data import Feeder
from nncompile.train.events import Fitting
from nncompile.train.sources.arrays import Rows

FORMAT = 1
_WHOLE = 2**26  # bytes of an array that are all part of its digest
_SAMPLES = 64  # equally spaced blocks that are the digest of a larger one
# What must be equal for a run to go on as if it had not ended, and how it is said.
_BOUND = {
    "model": "model",
    "recipe": "recipe",
    "data": "data",
    "validation": "held-out data",
    "batch_size": "batch size",
    "shuffle": "shuffle",
    "seed": "seed",
}

_NUMBER, _TEXT = (int, None), (str, None)
# What a command reads of `config.json`; a value that is not there is None.
_ENTRIES = {
    "model": str,
    "seed": int,
    "until": {"epoch": _NUMBER, "step": _NUMBER},
    "resumed": ([dict], None),
    "file": _TEXT,
    "choice": _TEXT,
    "hyperparameters": (dict, None),
    "finetune": (dict, None),
    "options": (
        None,
        {
            "batch_size": _NUMBER,
            "patience": _NUMBER,
            "monitor": _TEXT,
            "checkpoint_every": _TEXT,
            "provider": _TEXT,
            "threads": _NUMBER,
            "log": _TEXT,
            "settings": ([str], None),
        },
    ),
}

_WAY_OUT = "make it equal, or begin another run from its state: --resume CHECKPOINT --name NAME"


def described(fitting: Fitting, about: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says of a training that begins now; `about` are other entries."""
    trainer = fitting.trainer
    epoch, step = (None if math.isinf(end) else int(end) for end in fitting.ends)
    return {
        "format": FORMAT,
        "model": trainer.model.name,
        "started": datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "seed": trainer.seed,
        "provider": trainer.providers,
        "threads": trainer.threads,
        "batch_size": fitting.feeder.size,
        "shuffle": fitting.shuffle,
        "until": {"epoch": epoch, "step": step},
        **about,
        "recipe": described_recipe(trainer.declared.source),
        "data": described_data(fitting.feeder),
        "validation": described_data(fitting.held_out),
        "versions": versions(),
    }


def watched_by_default(recipe: Recipe, held_out: bool) -> str | None:
    """The first loss that is minimized, on held-out data where there are some; None without."""
    losses = recipe.losses
    if not losses or losses[0] not in recipe.model.metrics:
        return None
    return f"val_{losses[0]}" if held_out else losses[0]


def described_recipe(step: Step) -> dict[str, Any]:
    """The recipe in words, and a digest of what its step computes."""
    recipe = step.recipe
    return {
        "updates": [str(update) for update in recipe.updates],
        "freeze": list(recipe.freeze),
        "accumulate": recipe.accumulate,
        "parameters": {path: str(leaf.type) for path, leaf in recipe.model.parameters.items()},
        "step": step.digest,
    }


def described_data(feeder: Feeder | None) -> Any:
    """Shape, element type and digest of each array, or of what kind the batches are."""
    if feeder is None:
        return None
    if feeder.whole is None:
        kind = type(getattr(feeder.source, "data", feeder.source)).__name__
        return {"kind": kind, "batches": feeder.batch_count}
    return {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "digest": digest_of(x)}
        for name, x in feeder.whole.arrays.items()
    }


def digest_of(x: Rows) -> str:
    """A digest of the numbers of an array; of a large one, of 64 blocks of it and its size."""
    digest = hashlib.blake2b(f"{x.dtype} {x.shape}".encode(), digest_size=16)
    bytes_ = x.size * x.dtype.itemsize
    rows = x.shape[0] if x.ndim else 0
    if bytes_ <= _WHOLE or not rows:
        blocks = [np.asarray(x[:] if rows else x)]
    else:
        count = max(1, rows * (_WHOLE // _SAMPLES) // bytes_)
        starts = np.linspace(0, rows - count, _SAMPLES).astype(int).tolist()
        blocks = [np.asarray(x[start : start + count]) for start in starts]
    for block in blocks:
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def versions() -> dict[str, str | None]:
    """The versions of what the numbers depend on."""
    packages = {
        name: getattr(sys.modules.get(name), "__version__", None)
        for name in ("onnx", "onnxruntime", "numpy")
    }
    system = {"python": platform.python_version(), "system": platform.platform()}
    return {"nncompile": VERSION, **packages, **system}


def write(run: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json`. Raises `FileError`."""
    text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    write_atomically(run / "config.json", (text + "\n").encode())


def read(run: Path) -> dict[str, Any]:
    """What `config.json` of a run says. Raises `FileError` where it is no run, `CheckpointError`
    for a file that cannot be read or is of a newer version."""
    file = run / "config.json"
    try:
        config = json.loads(read_file(file))
    except FileError as error:
        raise FileError(
            f"{run} is not a run directory: {error.problem}",
            hint="a run directory has a config.json",
        ) from None
    except (ValueError, RecursionError):
        config = None
    known = isinstance(config, dict) and isinstance(config.get("format"), int)
    if known and config["format"] > FORMAT:
        raise CheckpointError(
            f"{file} has the format {config['format']}, this nncompile reads up to {FORMAT}",
            hint="pip install --upgrade nncompile",
        )
    if not known or not _is_of(config, _ENTRIES):
        raise CheckpointError(f"{file} cannot be read: it is not what a run writes")
    return dict(config)


def _is_of(x: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type, one of several, a list of one, or a dict with entries
    of these types."""
    if isinstance(kind, dict):
        return isinstance(x, dict) and all(_is_of(x.get(name), t) for name, t in kind.items())
    if isinstance(kind, list):
        return isinstance(x, list) and all(_is_of(item, kind[0]) for item in x)
    if isinstance(kind, tuple):
        return any(_is_of(x, t) for t in kind)
    return x is None if kind is None else type(x) is kind


def check_seed(run: Path | None, saved: Any, current: int) -> None:
    """Raises `CheckpointError` where a run of another seed would go on."""
    if saved != current:
        raise CheckpointError(
            f"the run {run} cannot go on: it is of another seed",
            rows=[("seed", f"was {saved}", f"is {current}")],
            hint=_WAY_OUT,
        )


def check_equal(run: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises `CheckpointError`, with each thing that differs, where a run cannot go on exactly."""
    rows: list[Row] = []
    for key, label in _BOUND.items():
        # Through JSON, as the saved one came.
        a, b = saved.get(key), json.loads(json.dumps(current.get(key), default=str))
        if a != b:
            rows += _differences(label, a, b)
    if rows:
        raise CheckpointError(
            f"the run {run} cannot go on: it is of another {_listed({r[0] for r in rows})}",
            rows=rows[:12],
            hint=_WAY_OUT,
        )


def _differences(label: str, a: Any, b: Any) -> list[Row]:
    """Rows of what differs: was, and is."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return [(label, "", f"was {_short(a)}", f"is {_short(b)}")]
    rows: list[Row] = []
    for key in {**a, **b}:
        if a.get(key) != b.get(key):
            rows.append((label, key, f"was {_short(a.get(key))}", f"is {_short(b.get(key))}"))
    return rows


def _short(x: Any) -> str:
    if isinstance(x, dict) and "shape" in x:
        return f"{x.get('dtype')}{x['shape']} of digest {str(x.get('digest'))[:8]}"
    text = x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def _listed(labels: set[str]) -> str:
    ordered = [label for label in _BOUND.values() if label in labels]
    return ", ".join(ordered)
