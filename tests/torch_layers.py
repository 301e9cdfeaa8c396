"""Layers of torch beside those of `dsl`: what tests of weights in both directions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Type
from nncompile.program.model import Model
from tests.layer_checks import model_of
from tests.tolerances import assert_close

Arrays = dict[str, np.ndarray]


def of(layer: Callable[..., Any], type_: Type, second: Type | None = None) -> Model:
    return model_of(layer, x=type_, **({} if second is None else {"memory": second}))


def drawn(net: Model, *sizes: int) -> Arrays:
    random = np.random.default_rng(1)
    found = {}
    for name, value in net.inputs.items():
        free = iter(sizes)
        shape = [n if isinstance(n, int) else next(free) for n in value.shape]
        x = random.normal(size=shape) if value.dtype.is_float else random.integers(0, 5, shape)
        found[name] = x.astype(value.dtype.numpy)
    return found


def shaken(torch: Any, module: Any) -> Any:
    """The module in inference, with all weights and statistics drawn anew."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in module.state_dict().items():
            if x.is_floating_point():
                noise = torch.randn_like(x) * 0.3
                x.copy_(noise.abs() + 0.5 if name.endswith(("var", "norm.weight")) else noise)
    return module.eval()


def first(results: Any) -> Any:
    return results[0] if isinstance(results, tuple) else results


def agrees(torch: Any, module: Any, net: Model, params: Any, *sizes: int) -> None:
    feeds = drawn(net, *sizes)
    with torch.no_grad():
        expected = first(module(*(torch.from_numpy(x) for x in feeds.values()))).numpy()
    found = evaluate(net.inference(), {**params, **feeds}, precision=np.float64)["y"]
    assert_close(expected, found, expected.dtype.name)
