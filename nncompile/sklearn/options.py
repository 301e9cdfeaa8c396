"""What the options of an estimator may be."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from nncompile.optim import Optimizer

# The options of the network and its optimizer, which a warm start keeps.
BUILT_OF = (
    *("hidden_layer_sizes", "activation", "architecture", "standardize", "dropout"),
    *("optimizer", "learning_rate", "weight_decay"),
)


def check_options(estimator: Any) -> None:
    """Raises `ValueError` for an option of another kind or out of its range."""
    e = estimator
    sizes = e.hidden_layer_sizes
    for size in sizes if isinstance(sizes, Sequence) else [sizes]:
        _require(_is_count(size), "hidden_layer_sizes", "numbers of at least 1", sizes)
    batch = e.batch_size
    _require(batch == "auto" or _is_count(batch), "batch_size", '"auto" or at least 1', batch)
    _require(_is_count(e.max_iter), "max_iter", "a number of epochs of at least 1", e.max_iter)
    patience = e.n_iter_no_change
    _require(_is_real(patience) and patience >= 1, "n_iter_no_change", "at least 1", patience)
    _require(_is_real(e.tol) and e.tol >= 0, "tol", "a number from 0 on", e.tol)
    share = e.validation_fraction
    inside = _is_real(share) and 0 < share < 1
    _require(inside, "validation_fraction", "between 0 and 1", share)
    own = e.architecture
    _require(own is None or callable(own), "architecture", "a layer or a function", own)
    named = isinstance(e.optimizer, str | Optimizer)
    _require(named, "optimizer", "a name or an optimizer", e.optimizer)


def built_of(estimator: Any) -> dict[str, str]:
    """The options that make the network, as text: functions by their names."""
    options = {name: getattr(estimator, name) for name in BUILT_OF}
    return {name: str(getattr(x, "__qualname__", repr(x))) for name, x in options.items()}


def check_same_network(estimator: Any, before: dict[str, str]) -> None:
    """Raises `ValueError` where a warm start would need another network than before."""
    for name, now in built_of(estimator).items():
        if now != before[name]:
            raise ValueError(
                f"a warm start continues with the same network: {name} was {before[name]}, "
                f"and is {now} now"
            )


def _require(holds: bool, name: str, wanted: str, got: Any) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {got!r}")


def _is_count(x: Any) -> bool:
    return isinstance(x, Integral) and not isinstance(x, bool) and int(x) >= 1


def _is_real(x: Any) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool)
