"""An exported step on a batch without examples: what follows the batches stays as it is, and no
parameter comes to be NaN. The runners refuse such a batch."""

from __future__ import annotations

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Layer,
    adam,
    cross_entropy,
    f32,
    flatten,
    i64,
    mean,
    model,
    relu,
    rmsprop,
    sgd,
    training,
    zeros,
)
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import FeedError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.optim import Optimizer
from nncompile.runtime.session import Session


class Followed(Layer):
    """x, of which a state follows the mean."""

    def __call__(self, x: Value) -> Value:
        seen = self.state("seen", (), zeros, f32)
        self.update("seen", 0.9 * seen + 0.1 * mean(x))
        batches = self.state("batches", (), zeros, i64)
        self.update("batches", batches + 1)
        return x


@model
def network(x: Value = f32["batch", 2, 6, 6], label: Value = i64["batch"]) -> dict[str, Value]:
    h = x >> Conv2d(3, 3) >> BatchNorm() >> relu >> Followed() >> BatchNorm(momentum=None)
    return {"loss": cross_entropy(h >> flatten >> Dense(4) >> BatchNorm(), label)}


def batch(size: int) -> dict[str, Array]:
    rng = np.random.default_rng(size)
    x = rng.standard_normal((size, 2, 6, 6), np.float32)
    return {"x": x, "label": rng.integers(0, 4, size)}


@pytest.mark.parametrize("optimizer", [sgd(0.1), adam(1e-3), rmsprop(1e-3)])
def test_an_empty_batch_changes_nothing_that_follows_batches(optimizer: Optimizer) -> None:
    compiled = compile_step(training(network, minimize="loss", optimizer=optimizer, batch_size=8))
    session = Session(compiled.step_model, threads=1)
    state = compiled.source.initial(0)
    followed = set(compiled.source.model.states)
    assert len(followed) == 9

    def after(results: dict[str, Array]) -> dict[str, Array]:
        return {**state, **{p: results[n] for p, n in compiled.source.state_map.items()}}

    state = after(session.run({**state, **batch(8)}))
    for results in (
        session.run({**state, **batch(0)}),
        evaluate(compiled.source.step, {**state, **batch(0)}),
    ):
        following = after(results)
        for path, x in following.items():
            assert np.all(np.isfinite(x)), path
            if path in followed and not path.endswith("batches"):
                np.testing.assert_array_equal(x, state[path], err_msg=path)
        if isinstance(optimizer, type(sgd(0.1))):  # the gradients are zero
            for path in compiled.source.parameters:
                np.testing.assert_array_equal(following[path], state[path], err_msg=path)
    again = after(session.run({**following, **batch(8)}))
    assert all(np.all(np.isfinite(x)) for x in again.values())


def test_the_runners_refuse_it() -> None:
    torch = pytest.importorskip("torch")
    from nncompile.backends.torchscript.stepping import to_step
    from nncompile.passes import optimize

    compiled = compile_step(training(network, minimize="loss", optimizer=sgd(0.1), batch_size=8))
    state = compiled.source.initial(0)
    with pytest.raises(FeedError, match="is empty"):
        compiled.runner(state).step(batch(0))
    module = to_step(compiled.source, state, lambda name, graph: optimize(graph))
    with pytest.raises(Exception, match="is empty"):
        module.train_step(*map(torch.from_numpy, batch(0).values()))
    for path, x in module.get_state().items():
        np.testing.assert_array_equal(x.numpy(), state[path], err_msg=path)
