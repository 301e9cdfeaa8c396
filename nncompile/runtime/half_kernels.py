"""Which devices have kernels of 16 bits for the products of a step."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.diagnostics.errors import ProviderError
from nncompile.program.precision import HALVES
from nncompile.program.recipe import Recipe
from nncompile.runtime.providers import Provider, resolve_providers, short_name

# By provider, as onnxruntime's table of kernels has MatMul and Gemm (docs/OperatorKernels.md).
KERNELS = {"cuda": ("f16", "bf16"), "tensorrt": ("f16", "bf16"), "dml": ("f16",)}


def check_precision(recipe: Recipe, providers: Provider | Sequence[Provider]) -> None:
    """Raises `ProviderError` where the device that the recipe is to be trained on has no kernels of
    its precision, and the recipe does not say that they are emulated."""
    if recipe.precision not in HALVES or recipe.emulate:
        return
    provider = short_name(resolve_providers(providers)[0][0])
    if recipe.precision not in KERNELS.get(provider, ()):
        raise ProviderError(
            f"onnxruntime's provider {provider!r} has no kernels of {recipe.precision} for matrix "
            "products: the step would not be faster there",
            rows=[("kernels", name, ", ".join(types)) for name, types in KERNELS.items()],
            hint="leave precision out there; emulate=True (--emulate) computes in float32 what "
            "such a step would give, rounded to 16 bits after each product",
        )
