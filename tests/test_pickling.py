"""Models, recipes and trainers as bytes: equal graphs, equal bits, in other processes, too."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    LSTM,
    BatchNorm,
    Dense,
    Dropout,
    Standardize,
    Vocabulary,
    adam,
    assign,
    const,
    custom_gradient,
    ema,
    f32,
    i64,
    model,
    mse,
    nonzero,
    relu,
    scan,
    schedule,
    sgd,
    training,
)
from nncompile import Trainer, optim
from nncompile.diagnostics.errors import CompileError, FeedError, ModelError
from nncompile.ir.printer import text
from nncompile.optim.schedules import Stateful
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe

SCALE = Standardize().adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
WORDS = Vocabulary(["a", "b"])


@schedule
def inverse(step: Any) -> Any:
    return 0.1 / (1 + step)


def twice(step: Any) -> Any:
    return 0.2 / (2 + step)


def layered(depth: int = 2) -> Model:
    @model(predict="y")
    def net(x=f32["batch", 4], word=i64["batch"], target=f32["batch", 1]):
        """A model of many kinds of layers."""
        hidden = (x >> SCALE) + (word >> WORDS >> dsl.Embedding(3, 4))
        for _ in range(depth):
            hidden = hidden >> Dense(4, relu) >> BatchNorm() >> Dropout(0.2)
        y = dsl.stack([hidden, hidden * 2], 1) >> LSTM(3) >> Dense(1)
        return {"y": y, "loss": mse(y, target), "many": nonzero(y[:, 0] > 0)[0]}

    return net  # type: ignore[no-any-return]


def recipe_of(net: Model, **options: Any) -> Recipe:
    return training(net, optimizer=adam(dsl.cosine(1e-2, steps=50, warmup=3)), **options)


def examples(rows: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, (rows, 4)).astype(np.float32)
    return {"x": x, "word": rng.integers(0, 3, rows), "target": x[:, :1] * 2}


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def again(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


def test_a_model_is_the_same_graph() -> None:
    net = layered()
    for other in (again(net), copy.deepcopy(net)):
        assert other is not net
        for field in ("initial", "updates", "outputs", "parameters", "states"):
            ours, theirs = getattr(net, field), getattr(other, field)
            assert list(ours) == list(theirs)
            assert all(ours[name] is theirs[name] for name in ours), field
        for field in ("name", "predict", "doc", "layers", "vocabularies", "metadata"):
            assert getattr(net, field) == getattr(other, field)
        assert text(other.graph) == text(net.graph)  # with the lines


def test_deep_models_do_not_recurse() -> None:
    @model
    def deep(x=f32["batch", 2]):
        for _ in range(1500):
            x = dsl.sin(x) + 1
        return x

    assert again(deep).outputs["output"] is deep.outputs["output"]
    assert again(deep.outputs["output"]) is deep.outputs["output"]


def test_sizes_that_depend_on_data_keep_their_makers() -> None:
    @model
    def net(x=f32["n"]):
        where = nonzero(x > 0)[0]
        return {"count": dsl.sum(dsl.ones_like(where)), "places": where}

    other = again(net)
    assert other.graph.locations.makers.keys() == net.graph.locations.makers.keys()
    assert other.graph.locations.makers


def test_the_next_steps_have_the_same_bits() -> None:
    data = examples()
    trainer = Trainer(recipe_of(layered(), batch_size=8, seed=3), threads=1)
    trainer.fit(data, steps=7)  # within the second epoch
    other = again(trainer)
    assert (other.step, other.epoch, other.seed, other.threads) == (7, 1, 3, 1)
    assert same(other.state, trainer.state)
    assert other.snapshot().metadata == trainer.snapshot().metadata
    with pytest.raises(FeedError, match="epoch 2 was interrupted after 2 batches of other data"):
        other.fit(examples(24), epochs=1)
    ours, theirs = (t.fit(data, epochs=2).epochs for t in (trainer, other))
    assert [{**epoch} for epoch in ours] == [{**epoch} for epoch in theirs]
    assert same(other.state, trainer.state)


RATES: dict[str, Callable[[], Any]] = {
    "a number": lambda: 0.1,
    "constant_rate": lambda: dsl.constant_rate(0.1),
    "step_decay": lambda: dsl.step_decay(0.1, 5),
    "exponential": lambda: dsl.exponential(0.1, gamma=0.9),
    "cosine": lambda: dsl.cosine(0.1, steps=20),
    "linear_decay": lambda: dsl.linear_decay(0.1, steps=20),
    "polynomial": lambda: dsl.polynomial(0.1, steps=20, power=2.0),
    "multi_step": lambda: dsl.multi_step(0.1, [3, 6]),
    "warm_restarts": lambda: dsl.warm_restarts(0.1, period=5, growth=2),
    "one_cycle": lambda: dsl.one_cycle(0.1, total_steps=20),
    "warmup": lambda: dsl.warmup(dsl.exponential(0.1, 0.9), steps=4),
    "piecewise": lambda: dsl.piecewise([0.1, dsl.cosine(0.1, steps=9)], [5]),
    "inverse_sqrt": lambda: dsl.inverse_sqrt(0.1, warmup=4),
    "plateau": lambda: dsl.plateau(0.1),
    "adjustable": lambda: dsl.adjustable(dsl.plateau(0.1), name="slow"),
    "one's own": lambda: inverse,
    "a function": lambda: twice,
    "a schedule of a function": lambda: schedule(twice),
}


def linear() -> Model:
    @model
    def net(x=f32["batch", 4], target=f32["batch", 1]):
        return {"loss": mse(x >> Dense(1), target)}

    return net  # type: ignore[no-any-return]


def test_every_schedule_is_here() -> None:
    rates = {n for n in optim.__all__ if not isinstance(getattr(optim, n), type)} - {"schedule"}
    assert rates | {"plateau", "adjustable"} <= RATES.keys()


@pytest.mark.parametrize("name", [n for n in optim.__all__ if n.islower()])
def test_an_optimizer_is_pickled(name: str) -> None:
    kind = getattr(optim, name)
    if isinstance(kind, type) and issubclass(kind, dsl.Optimizer):
        recipe = training(linear(), optimizer=kind())
        assert again(recipe).updates[0].optimizer == recipe.updates[0].optimizer


@pytest.mark.parametrize("name", RATES)
def test_a_rate_is_pickled(name: str) -> None:
    rate = RATES[name]()
    recipe = training(linear(), optimizer=sgd(rate))
    other = again(recipe)
    if callable(rate) and not isinstance(rate, Stateful):
        steps = np.arange(30.0)
        mine, theirs = recipe.updates[0].optimizer.lr, other.updates[0].optimizer.lr
        np.testing.assert_array_equal([mine(s) for s in steps], [theirs(s) for s in steps])
    data = examples()
    del data["word"]
    states = []
    for one in (recipe, other):
        trainer = Trainer(one, threads=1)
        trainer.fit(data, steps=3)
        states.append(trainer.state)
    assert same(*states)


def test_recipes_keep_what_they_say() -> None:
    net = layered()
    recipe = training(
        net,
        optimizer=adam(1e-2, weight_decay=0.1),
        average=ema(0.9),
        freeze="embedding.*",
        recompute="dense",
        accumulate=2,
        clip_norm=1.0,
        epochs=3,
    )
    _ = recipe.trained_model
    other = again(recipe)
    assert str(other.updates) == str(recipe.updates)
    for field in ("batch_size", "epochs", "steps", "seed", "freeze", "recompute", "accumulate"):
        assert getattr(other, field) == getattr(recipe, field)


def test_what_cannot_be_pickled_is_named() -> None:
    net = linear()
    by_lambda = training(net, updates=[assign("dense.bias", lambda v: v["dense.bias"] * 0.5)])
    with pytest.raises(
        ModelError, match=r"recipe of net cannot be pickled: \w+ of assign(.|\n)*hint"
    ):
        pickle.dumps(by_lambda)
    with pytest.raises(ModelError, match=r"pickled: optimizer of minimize(.|\n)*lambda"):
        pickle.dumps(training(net, optimizer=sgd(lambda step: 0.1 / (1 + step))))


def clipped(g: Any, y: Any, x: Any) -> Any:
    return dsl.clip(g, -1, 1)


def test_a_gradient_of_ones_own_is_kept_by_name() -> None:
    def made(gradient: Any) -> Any:
        @model
        def net(x=f32["batch", 4]):
            return custom_gradient(gradient)(dsl.sin)(x)

        return net

    net = made(clipped)
    assert again(net).outputs["output"] is net.outputs["output"]
    with pytest.raises(ModelError, match=r"net cannot be pickled: the op custom_vjp(.|\n)*at "):
        pickle.dumps(made(lambda g, y, x: g))


def test_a_layer_with_a_loop_is_pickled() -> None:
    @model
    def net(x=f32["time", 3]):
        total, _ = scan(lambda carry, row: (carry + row, carry), const(np.zeros(3, np.float32)), x)
        return total

    assert again(net).outputs["output"] is net.outputs["output"]


def test_errors_are_pickled() -> None:
    """A process that fails says so as it would here."""
    try:
        training(linear(), minimize="los")
    except CompileError as error:
        other = again(error)
        assert type(other) is type(error)
        assert str(other) == str(error)


def trained_elsewhere(content: bytes) -> dict[str, Any]:
    """In another process: three more steps, or three of a recipe."""
    what = pickle.loads(content)
    trainer = what if isinstance(what, Trainer) else Trainer(what, threads=1)
    trainer.fit(examples(), steps=3)
    return trainer.state


def test_another_process_makes_the_same_steps() -> None:
    recipe = recipe_of(layered(), batch_size=8)
    trainer = Trainer(recipe, threads=1)
    trainer.fit(examples(), steps=2)
    contents = [pickle.dumps(recipe), pickle.dumps(trainer)]
    expected = list(map(trained_elsewhere, contents))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(trained_elsewhere, contents)
    assert all(map(same, found, expected))
