"""Mixture of experts: a router chooses, for each place, which of several networks answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.activations import gelu
from dsl.initializers import glorot_uniform, zeros
from dsl.layers.base import Layer
from dsl.layers.known_sizes import known_size
from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.elementwise import stop_gradient, where
from nncompile.ir.basic import as_value, floating
from nncompile.ir.dims import product
from nncompile.ir.op import Value
from nncompile.ops import expand_dims, mean, one_hot, reshape, softmax, top_k, transpose
from nncompile.ops import sum as total


class MixtureOfExperts(Layer):
    """Σ wₑ(x)·expertₑ(x) over the `top_k` experts that the router finds most probable for x:
    `[..., n]` to `[..., n]`, each expert activation(x·W + b)·V + c by way of `hidden_size` features
    (4n by default; Shazeer et al. 2017).

    The weights of the chosen experts are the softmax of their scores, so that their sum is 1
    (Mixtral); of a single one its probability among all (Switch, Fedus et al. 2021), for else the
    router would have no gradient. All experts are computed and the others weighed by 0: the result
    and its gradients are exact, the work is that of all. Parameters `router` f32[n, num_experts],
    `weight` f32[num_experts, n, hidden_size], `bias`, `output_weight` and `output_bias`, the biases
    not where `bias` is False.

    `balance(x)` is a loss that keeps experts in use: `loss + 0.01 * mixture.balance(x)`. Raises
    `ModelError` for a top_k that is not in 1 … num_experts.
    """

    num_experts: int
    top_k: int = 2
    hidden_size: int | None = None
    activation: Callable[[Any], Any] = gelu
    init: Any = glorot_uniform
    bias: bool = True

    def __post_init__(self) -> None:
        whole_number("num_experts of MixtureOfExperts", self.num_experts, 1)
        if whole_number("top_k of MixtureOfExperts", self.top_k, 1) > self.num_experts:
            raise ModelError(
                f"MixtureOfExperts: top_k={self.top_k} is more than the {self.num_experts} experts",
                hint=f"MixtureOfExperts({self.num_experts}, top_k=1) uses only the best expert",
            )

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        scores, chosen = self._routed(x)
        n, count = x.shape[-1], self.num_experts
        hidden = 4 * n if self.hidden_size is None else self.hidden_size
        tokens = product(x.shape[:-1])

        def project(y: Value, name: str, rows: int, columns: int) -> Value:
            shape = (count, rows, columns)
            matrices = self.parameter(
                f"{name}weight", shape, self.init, x.dtype, fans=(rows, columns)
            )
            y = y @ matrices
            if self.bias:
                y = y + self.parameter(f"{name}bias", (count, 1, columns), zeros, x.dtype)
            return y

        inner = self.activation(project(reshape(x, (1, tokens, n)), "", n, hidden))
        outputs = project(inner, "output_", hidden, n)  # [experts, places, n]
        if self.top_k == 1:
            weights = where(chosen, softmax(scores), 0)
        else:
            # Not −∞: a probability of 0 has gradient 0 either way, and this stays finite.
            weights = softmax(where(chosen, scores, -1e30))
        expert_weights = transpose(reshape(weights, (tokens, count)))
        return reshape(total(expand_dims(expert_weights, -1) * outputs, 0), x.shape)

    def balance(self, x: Any) -> Value:
        """experts·Σ fₑ·pₑ, fₑ the part of the choices that fell on expert e and pₑ its mean
        probability: 1 where all are used alike, more where few are. Its gradient comes by pₑ, for
        choices have none (Fedus et al. 2021, equations 4–6)."""
        scores, chosen = self._routed(as_value(x))
        shape = (product(scores.shape[:-1]), self.num_experts)
        shares = mean(reshape(where(chosen, 1.0 / self.top_k, 0.0).astype(scores.dtype), shape), 0)
        likely = mean(reshape(softmax(scores), shape), 0)
        return total(stop_gradient(shares) * likely) * self.num_experts

    def _routed(self, x: Value) -> tuple[Value, Value]:
        """The scores of all experts `[..., experts]`, and which of them are chosen."""
        x = floating("MixtureOfExperts", x, "an Embedding turns token ids into features")
        width = known_size(
            f"MixtureOfExperts needs a known number of features, x is {x.type}", x, -1
        )
        router = self.parameter("router", (width, self.num_experts), self.init, x.dtype)
        scores: Value = x @ router
        _, best = top_k(scores, self.top_k)
        return scores, total(one_hot(best, self.num_experts), -2) > 0


__all__ = [
    "MixtureOfExperts",
]
