"""State of layers and of models, and its updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, Layer, f32, f64, model, state, update, zeros
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from tests.layer_checks import outputs


class Counter(Layer):
    """The input, and how often the layer was called on the way."""

    def __call__(self, x: Any) -> Any:
        count = self.state("count", init=zeros)
        self.update(count, count + 1)
        return x + self.state("count")


def test_calls_of_one_layer_chain_their_updates() -> None:
    counter = Counter()

    @model
    def net(x=f32["batch"]):
        return {"once": counter(x), "twice": counter(x)}

    assert list(net.states) == ["counter.count"]
    count = net.states["counter.count"]
    zero = np.zeros(1, np.float32)
    feeds = {"x": zero, "counter.count": np.float32(5)}
    values = {**net.outputs, "next": net.updates["counter.count"]}
    found = evaluate(values, feeds)
    assert found == {"once": [6.0], "twice": [7.0], "next": 7.0}
    assert count.type == f32[()]


def test_state_of_the_model_itself() -> None:
    @model
    def net(x=f32["batch", 3]):
        mean = state("mean", 3)
        update("mean", 0.9 * mean + 0.1 * x.mean(0))
        return x - mean

    assert list(net.states) == ["mean"]
    assert list(net.updates) == ["mean"]


def test_updates_that_do_not_fit_are_refused() -> None:
    def declare(new: Any, of: Any = None) -> Any:
        @model
        def net(x=f32["batch", 3]):
            mean = state("mean", 3)
            update(mean if of is None else of, new(x))
            return x - mean

        return net

    with pytest.raises(ShapeError, match=r"mean is f32\[3\], its update is f32\[batch, 3\]"):
        declare(lambda x: x)
    with pytest.raises(DTypeError, match="its update is f64"):
        declare(lambda x: x.mean(0).astype(f64))
    with pytest.raises(ModelError, match="no state other"):
        declare(lambda x: x.mean(0), "other")


def test_states_of_one_value_need_their_names() -> None:
    @model
    def net(x=f32["batch"]):
        low, high = state("low"), state("high")
        update(low, x.mean())
        update(high, x.mean())
        with pytest.raises(ModelError, match="the value of low and of high"):
            update(x.mean(), x.max())
        update("high", x.max())
        with pytest.raises(ModelError, match="not a state"):
            update(high, x.max())
        return x

    assert net.updates["high"] is net.inputs["x"].max()


def test_a_layer_that_a_loop_calls_first_is_drawn_once() -> None:
    @model
    def looped(x=f32["batch", 3]):
        layer = Dense(3, name="layer")
        return dsl.scan(lambda y: layer(y), x, length=4)

    @model
    def unrolled(x=f32["batch", 3]):
        layer = Dense(3, name="layer")
        return x >> layer >> layer >> layer >> layer

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found, expected = outputs(looped, x=x), outputs(unrolled, x=x)
    np.testing.assert_allclose(found["output"], expected["output"], rtol=1e-6)


def test_a_state_is_not_updated_within_a_loop() -> None:
    def body(total: Any, x: Any) -> Any:
        update("mean", x.mean())
        return total + x

    with pytest.raises(ModelError, match="state mean is updated in the body of a loop") as caught:

        @model
        def net(xs=f32["time", 3]):
            state("mean")
            return dsl.scan(body, xs[0], xs)

    assert "with the last one" in str(caught.value)
