"""Execution providers by short or full name: the requested ones, or an error.

onnxruntime itself warns and falls back to the CPU where a provider is missing or does not start.
Here both are a `ProviderError`, so that a figure measured "on the GPU" was measured there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from ctypes.util import find_library

import onnxruntime as ort

from nncompile.diagnostics.errors import ProviderError, did_you_mean
from nncompile.diagnostics.hints import suggests_names

Provider = str | tuple[str, Mapping[str, object]]
Resolved = tuple[str, dict[str, str]]
STRICT = "strict_device"
"""An option of a provider that is ours: see `strictness`."""

_SUFFIX = "ExecutionProvider"
_PACKAGES = {
    "CUDA": "onnxruntime-gpu",
    "Tensorrt": "onnxruntime-gpu",
    "Dml": "onnxruntime-directml",
    "MIGraphX": "onnxruntime-migraphx",
    "OpenVINO": "onnxruntime-openvino",
    "QNN": "onnxruntime-qnn",
}
# What else they are called, by the device or its maker.
_FOREIGN = {
    **dict.fromkeys(("gpu", "nvidia", "cuda:0"), "cuda"),
    **dict.fromkeys(("trt", "tensor_rt"), "tensorrt"),
    **dict.fromkeys(("directml", "directx"), "dml"),
    **dict.fromkeys(("amd", "hip"), "migraphx"),
    **dict.fromkeys(("apple", "metal", "mps"), "coreml"),
    "intel": "openvino",
}
# Providers whose tensors onnxruntime keeps in CUDA memory; all others are fed from the CPU.
_CUDA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def short_name(provider: str) -> str:
    """`cuda` for `CUDAExecutionProvider`."""
    return provider.removesuffix(_SUFFIX).lower()


@suggests_names
def available_providers() -> tuple[str, ...]:
    """The short names of the providers that this onnxruntime has, the preferred first."""
    return tuple(short_name(name) for name in ort.get_available_providers())


def resolve_providers(providers: Provider | Sequence[Provider]) -> list[Resolved]:
    """Full names and text options, in the requested order.

    Raises `ProviderError` for a name that onnxruntime does not know, one that this build does not
    have, one given twice, or none at all.

    >>> resolve_providers("cpu")
    [('CPUExecutionProvider', {})]
    """
    resolved: dict[str, dict[str, str]] = {}
    for name, options in _pairs(providers):
        full = _full_name(name)
        if full in resolved:
            raise ProviderError(f"provider {short_name(full)!r} is given twice")
        resolved[full] = {str(key): str(value) for key, value in options.items()}
    if not resolved:
        raise ProviderError("no execution provider is given", hint=_available_hint())
    return list(resolved.items())


def strictness(resolved: Sequence[Resolved]) -> tuple[list[Resolved], bool]:
    """The providers as onnxruntime takes them, and whether one has the option `strict_device`:
    nothing that computes with data may then be left to the CPU."""
    known = [(n, {k: x for k, x in options.items() if k != STRICT}) for n, options in resolved]
    return known, any(o.get(STRICT, "0").lower() in ("1", "true") for _, o in resolved)


def on_device(provider: str, strict: bool) -> Provider:
    """The provider, with the option `strict_device` if `strict`."""
    return (provider, {STRICT: True}) if strict else provider


def check_started(requested: Sequence[Resolved], running: Sequence[str]) -> None:
    """Raises `ProviderError` where a session runs without a requested provider."""
    missing = [name for name, _ in requested if name not in running]
    if missing:
        raise ProviderError(
            f"provider {short_name(missing[0])!r} did not start, although onnxruntime has it",
            rows=[("asked", _listing(n for n, _ in requested)), ("running", _listing(running))],
            hint=_way_to_start(missing[0]),
        )


def _way_to_start(provider: str) -> str:
    """What to do where a provider did not start."""
    if provider != "CUDAExecutionProvider":
        return "check its driver and libraries, or choose another provider"
    if sys.platform.startswith("linux") and find_library("cuda") is None:
        return "this machine has no NVIDIA driver (libcuda.so.1), which nvidia-smi comes with"
    return (
        "pip install 'nncompile[cuda]' brings the libraries of CUDA and cuDNN that onnxruntime "
        f"{ort.__version__} was built for; nncompile doctor tells what is installed"
    )


def device_of(requested: Sequence[Resolved]) -> tuple[str, int]:
    """The device type and number where the tensors of the first provider live."""
    name, options = requested[0]
    return ("cuda", int(options.get("device_id", 0))) if name in _CUDA else ("cpu", 0)


def _pairs(
    providers: Provider | Sequence[Provider],
) -> Iterable[tuple[str, Mapping[str, object]]]:
    match providers:
        case str(name):
            yield name, {}
        case (str(name), Mapping() as options):
            yield name, options
        case [*several]:
            for provider in several:
                if not isinstance(provider, str | tuple) or not provider:
                    raise ProviderError(
                        f"{provider!r} is not a provider", hint='write "cuda" or ("cuda", {...})'
                    )
                yield from _pairs(provider)
        case _:
            raise ProviderError(
                f"{providers!r} is not a provider", hint='write "cuda" or ("cuda", {...})'
            )


def _full_name(name: str) -> str:
    available: dict[str, str] = {short_name(full): full for full in ort.get_available_providers()}
    supported: dict[str, str] = {short_name(full): full for full in ort.get_all_providers()}
    short = name.lower().removesuffix(_SUFFIX.lower())
    if short in available:
        return available[short]
    if short not in supported:
        raise ProviderError(
            f"unknown execution provider {name!r}",
            hint=f"did you mean {_FOREIGN[short]!r}?"
            if short in _FOREIGN
            else did_you_mean(short, supported, _available_hint()),
        )
    package = _PACKAGES.get(supported[short].removesuffix(_SUFFIX))
    raise ProviderError(
        f"this onnxruntime has no provider {short!r}",
        rows=[("available", ", ".join(available)), ("version", ort.__version__)],
        hint=f"pip install {package} (in place of onnxruntime)"
        if package
        else "it needs an onnxruntime that was built with it",
    )


def _available_hint() -> str:
    return f"available: {', '.join(available_providers())}"


def _listing(names: Iterable[str]) -> str:
    return ", ".join(short_name(name) for name in names)
