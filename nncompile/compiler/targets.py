"""What is exported, and the suffixes of its files."""

from __future__ import annotations

from pathlib import Path

from nncompile.diagnostics.errors import FileError, ModelError, did_you_mean

_ONNX = ("onnx", "original", "step", "gradient", "update", "accumulate", "apply")
REPOSITORIES = ("triton", "mlserver")
"""The targets that are directories of models, as servers read them."""

_DIRECTORIES = ("web", *REPOSITORIES)
TARGETS = (*_ONNX, "ort", "torchscript", "torchscript-step", "pt2", "adapter", *_DIRECTORIES)
TORCH_TARGETS = {"torchscript": "TorchScript", "pt2": "A .pt2 file"}  # inference models
INFERENCE = ("onnx", "original", "ort", *TORCH_TARGETS, *REPOSITORIES)
"""The targets that hold the model with its weights."""

# What a file must end with where its name says what it is; others end with .onnx.
SUFFIXES = {"torchscript": ".pt", "torchscript-step": ".pt", "pt2": ".pt2"}
SUFFIXES |= {"adapter": ".safetensors", "ort": ".ort"}
_BY_SUFFIX = {
    "": "onnx",
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".pt2": "pt2",
    ".ort": "ort",
}


def target_of(path: Path, to: str | None = None) -> str:
    """The target `to`, or the one that the suffix of `path` tells. Raises `ModelError` for an
    unknown one, `FileError` where the file would be taken for that of another."""
    if to is None:
        if path.suffix not in _BY_SUFFIX:
            raise FileError(
                f"the suffix of {path} does not say in which format it is written",
                hint=f"name it {path.with_suffix('.onnx')}, or say to='onnx'",
            )
        return _BY_SUFFIX[path.suffix]
    if to not in TARGETS:
        close = did_you_mean(to, TARGETS)
        raise ModelError(
            f"cannot export to {to!r}", hint=close or f"choose one of {', '.join(TARGETS)}"
        )
    if to in _DIRECTORIES:
        if path.suffix in (*_BY_SUFFIX, *SUFFIXES.values()) and path.suffix:
            raise FileError(
                f"{to} is written to a directory, but {path} has the suffix of a file",
                hint=f"name it {path.with_suffix('')}",
            )
        return to
    expected = SUFFIXES.get(to, ".onnx")
    suffix = path.suffix.replace(".pth", ".pt")
    if suffix != expected and suffix in (".onnx", *SUFFIXES.values()):
        raise FileError(
            f"{to} is written to a {expected} file, but {path} has a different suffix",
            hint=f"name it {path.with_suffix(expected)}",
        )
    return to
