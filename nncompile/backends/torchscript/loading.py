"""Files of torch, ours and others', as functions from arrays to arrays."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from nncompile.backends.torchscript.arrays import array_of, tensor_of
from nncompile.backends.torchscript.exporting import METADATA
from nncompile.backends.torchscript.script import check_python
from nncompile.diagnostics.errors import BackendError, ProviderError
from nncompile.ir.types import DTYPES, Array


@dataclass(frozen=True)
class LoadedFile:
    """A model from a file: the names of its inputs, what it says of itself (nothing, where another
    program wrote it), and the module."""

    names: tuple[str, ...]
    about: dict[str, Any]
    module: Any
    device: str

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, of arrays by the names of inputs."""
        order = [tensor_of(arrays[n]) for n in self.names]
        with torch.no_grad():
            results = self.module(*(x.to(self.device) for x in order))
        if isinstance(results, Mapping):
            named = dict(results)
        else:
            several = results if isinstance(results, Sequence) else (results,)
            named = {f"output_{i}": x for i, x in enumerate(several)}
        return {name: array_of(x) for name, x in named.items()}

    @property
    def steps(self) -> int | None:
        """How many steps a training step has made; None for what is none."""
        return int(self.module.step) if self.about.get("kind") == "step" else None


def load_file(path: Path, device: str = "cpu", threads: int | None = None) -> LoadedFile:
    """The model in a `.pt` or `.pt2` file, on that device. Raises `BackendError` where it is
    neither, `ProviderError` where torch has no such device."""
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise ProviderError(
            f"torch has no device {device!r} here", hint="--provider cpu, or a torch with CUDA"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    exported = path.suffix == ".pt2"
    content = _content(path)
    if content == "a .pt2 file" and not exported:
        raise BackendError(f"{path} is {content}, by torch.export", hint="rename it to end in .pt2")
    if content == "a TorchScript file" and exported:
        raise BackendError(f"{path} is {content}", hint="rename it to end in .pt")
    return _exported(path, device) if exported else _scripted(path, device)


def _content(path: Path) -> str:
    """What the file is, by what it consists of; nothing where that tells nothing."""
    parts = [name.partition("/")[2] for name in _members(path)]  # without the archive's
    if "archive_format" in parts:
        return "a .pt2 file"
    return "a TorchScript file" if any(p.startswith("code/") for p in parts) else ""


def _members(path: Path) -> list[str]:
    """What is in the archive that a file is; nothing where it is none, or broken."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return []


def _scripted(path: Path, device: str) -> LoadedFile:
    check_python()
    try:
        module = torch.jit.load(path, map_location=device)
        about = _about(getattr(module, "nncompile", ""))
        names = tuple(a.name for a in module.forward.schema.arguments[1:])
        return LoadedFile(tuple(about.get("inputs", names)), about, module.eval(), device)
    except MemoryError:
        raise
    except Exception as error:  # of any class: a broken file ends anywhere in torch
        raise BackendError(
            f"{path} is not a TorchScript file: {_first_sentence(error)}",
            hint="if it is a state dict, from_torch_state_dict loads its weights",
        ) from error


def _exported(path: Path, device: str) -> LoadedFile:
    if not _members(path):
        raise BackendError(f"{path} is not a .pt2 file", hint="it may be truncated")
    extra = {METADATA: ""}
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it would print a traceback of its own
    try:
        program = torch.export.load(path, extra_files=extra)
        if device != "cpu":
            program = move_to_device_pass(program, device)
        about = _about(extra[METADATA])
        names = tuple(map(str, program.graph_signature.user_inputs))
        return LoadedFile(tuple(about.get("inputs", names)), about, program.module(), device)
    except MemoryError:
        raise
    except Exception as error:  # of any class: a broken file ends anywhere in torch
        raise BackendError(f"{path} is not a .pt2 file: {_first_sentence(error)}") from error
    finally:
        log.setLevel(level)


def _about(text: Any) -> dict[str, Any]:
    """What a file of ours says of itself. Raises `ValueError` for what ours does not say."""
    about = json.loads(text) if text else {}
    inputs = about.get("inputs", {}) if isinstance(about, dict) else None
    if not isinstance(inputs, dict) or not all(map(_is_type, inputs.values())):
        raise ValueError("what it says of itself cannot be read")
    return dict(about)


def _is_type(x: Any) -> bool:
    """Whether it is an element type and sizes."""
    return (
        isinstance(x, list)
        and len(x) == 2
        and x[0] in {d.name for d in DTYPES}
        and isinstance(x[1], list)
        and all(isinstance(size, int | str) and not isinstance(size, bool) for size in x[1])
    )


def _first_sentence(error: Exception) -> str:
    """The first sentence of torch's message, without what it prints of its own code."""
    text = str(error).partition("Exception raised from")[0]
    return " ".join(text.split()).partition(". ")[0] or type(error).__name__
