"""Which devices have kernels of 16 bits for the products of a step."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.diagnostics.errors import ProviderError
from nncompile.program.precision import HALVES
from nncompile.program.recipe import Recipe
from nncompile.runtime.cuda.kernels import table
from nncompile.runtime.providers import Provider, resolve_providers, short_name

# By provider, beside CUDA, of which there is a table.
_OTHERS = {"tensorrt": ("f16", "bf16"), "dml": ("f16",)}


def half_kernels() -> dict[str, tuple[str, ...]]:
    """The floats of 16 bits that providers have matrix products of."""
    newest = (kernel for kernel in table().kernels["MatMul"] if kernel.last is None)
    known = {dtype for kernel in newest for types in kernel.types.values() for dtype in types}
    return {"cuda": tuple(n for n, dtype in HALVES.items() if dtype in known), **_OTHERS}


def check_precision(recipe: Recipe, providers: Provider | Sequence[Provider]) -> None:
    """Raises `ProviderError` where the device that the recipe is to be trained on has no kernels of
    its precision, and the recipe does not say that they are emulated."""
    if recipe.precision not in HALVES or recipe.emulate:
        return
    provider = short_name(resolve_providers(providers)[0][0])
    kernels = half_kernels()
    if recipe.precision not in kernels.get(provider, ()):
        raise ProviderError(
            f"onnxruntime's provider {provider!r} has no kernels of {recipe.precision} for matrix "
            "products: the step would not be faster there",
            rows=[("kernels", name, ", ".join(types)) for name, types in kernels.items()],
            hint="leave precision out there; emulate=True (--emulate) computes in float32 what "
            "such a step would give, rounded to 16 bits after each product",
        )
