"""Files of torch, ours and others', as functions from arrays to arrays."""

from __future__ import annotations

import json
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
from nncompile.ir.types import Array


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
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        parts = [name.partition("/")[2] for name in archive.namelist()]  # without the archive's
    if "archive_format" in parts:
        return "a .pt2 file"
    return "a TorchScript file" if any(p.startswith("code/") for p in parts) else ""


def _scripted(path: Path, device: str) -> LoadedFile:
    check_python()
    try:
        module = torch.jit.load(path, map_location=device)
    except RuntimeError as error:
        raise BackendError(
            f"{path} is not a TorchScript file: {_first_sentence(error)}",
            hint="if it is a state dict, from_torch_state_dict loads its weights",
        ) from None
    about = json.loads(module.nncompile) if hasattr(module, "nncompile") else {}
    names = tuple(a.name for a in module.forward.schema.arguments[1:])
    return LoadedFile(tuple(about.get("inputs", names)), about, module.eval(), device)


def _exported(path: Path, device: str) -> LoadedFile:
    if not zipfile.is_zipfile(path):  # torch would print a traceback of its own
        raise BackendError(f"{path} is not a .pt2 file", hint="it may be truncated")
    extra = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise BackendError(f"{path} is not a .pt2 file: {_first_sentence(error)}") from None
    if device != "cpu":
        program = move_to_device_pass(program, device)
    about = json.loads(extra[METADATA]) if extra[METADATA] else {}
    names = tuple(map(str, program.graph_signature.user_inputs))
    return LoadedFile(tuple(about.get("inputs", names)), about, program.module(), device)


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
