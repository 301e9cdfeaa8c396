"""Rows: gradients, initial values, and what a recipe can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dsl
from dsl import f32, model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.transform import replace
from nncompile.ir.types import i64
from nncompile.ops.random.generator import seed_leaf, step_leaf
from nncompile.program.composition import compose
from nncompile.program.initialization import initial_expressions
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.train import Trainer
from tests.coverage.building import of
from tests.coverage.checks import Feeds, System
from tests.coverage.nets import network
from tests.coverage.peers import descent
from tests.coverage.stepping import STEPS
from tests.small_models import data

GRADIENTS, INITIAL, RECIPES = "Gradients", "Initial values", "Recipes"


def _smooth(x: Any) -> Any:
    return dsl.mean(dsl.tanh(x) * dsl.sin(x) ** 2)


def _third(x: Any) -> Any:
    """The gradient of the gradient of the gradient, of which two more are taken."""
    y = _smooth(x)
    for _ in range(3):
        y = dsl.mean(dsl.grad(y, [x])[0] ** 2)
    return y


def _products(x: Any) -> Any:
    y = dsl.tanh(x) * dsl.sum(x * x, 1)[:, None]
    (back,) = dsl.vjp([y], [x], [dsl.cos(x)])
    (forth,) = dsl.jvp([y], [x], [dsl.sin(x)])
    return back + forth


def _inner_step() -> Model:
    """The loss at some points of the weights after a step of descent at others."""

    @model
    def curve(x: Any = f32["points", 1]) -> dict[str, Any]:
        return {"y": x >> dsl.Dense(6, dsl.tanh, name="hidden") >> dsl.Dense(1, name="out")}

    @model
    def meta(
        x: Any = f32["batch", 1],
        y: Any = f32["batch", 1],
        new_x: Any = f32["batch", 1],
        new_y: Any = f32["batch", 1],
    ) -> dict[str, Any]:
        weights = curve.parameters
        gradients = dsl.grad(dsl.mse(curve(x)["y"], y), weights)
        after = {path: w - 0.1 * gradients[path] for path, w in weights.items()}
        return {"loss": dsl.mse(curve(new_x, params=after)["y"], new_y)}

    return meta  # type: ignore[no-any-return]


def _gradient(name: str, build: Callable[[], Model], **options: Any) -> System:
    shown = {"agrees": "finite differences", "test": "tests/test_grad.py"}
    return System(name, GRADIENTS, build, **{**shown, **options})


def _several_sizes(recipe: Recipe) -> list[Feeds]:
    """Single examples, small batches and all examples."""
    return [data(size, seed) for seed, size in enumerate((1, 1, 1, 8, 8, 8, 8, 50, 50, 50))]


GRADIENT_ROWS = (
    _gradient("reverse mode of any order", of(_third)),
    _gradient("vector-Jacobian and Jacobian-vector products", of(_products)),
    _gradient("Hessian-vector products",
              of(lambda x: dsl.hvp(_smooth(x), [x], [dsl.cos(x)])[0])),
    _gradient("MAML: through an inner step", _inner_step, example="examples/maml.py",
              recipe=lambda: dsl.training(_inner_step(), optimizer=dsl.adam(0.01), batch_size=8)),
    System("batch, stochastic, mini-batch descent", GRADIENTS, lambda: _descent().model,
           lambda: _descent(), batches=_several_sizes, agrees="torch",
           peer=descent(lambda o, p: o.SGD(list(p.values()), 0.1)),
           example="examples/batch_sizes.py"),
)  # fmt: skip


def _descent(**options: Any) -> Recipe:
    return dsl.training(network(), **{"optimizer": dsl.sgd(0.1), "batch_size": 8, **options})


_RANDOM = {"seed": seed_leaf, "step": step_leaf}


def _initial(name: str, *initializers: Callable[[], Any], **options: Any) -> System:
    """The graph that draws the parameters from a seed: the same numbers in every backend."""

    def build() -> Graph:
        @model
        def net(x: Any = f32["batch", 6]) -> dict[str, Any]:
            widths = (
                dsl.Dense(4, init=make(), name=f"n{i}") for i, make in enumerate(initializers)
            )
            return {f"y{i}": x >> layer for i, layer in enumerate(widths)}

        drawn = initial_expressions(net)
        leaves = {leaf(): Input(name, i64[()])() for name, leaf in _RANDOM.items()}
        return Graph(
            "initial", dict(zip(drawn, replace(list(drawn.values()), leaves), strict=True))
        )

    shown = {"agrees": "their variances", "test": "tests/test_initializers.py"}
    return System(name, INITIAL, build, order=0, **{**shown, **options})


INITIAL_ROWS = (
    _initial("zeros, ones, constant", lambda: dsl.zeros, lambda: dsl.ones,
             lambda: dsl.constant(0.3), agrees="their numbers"),
    _initial("uniform, normal, truncated normal", lambda: dsl.uniform(-0.1, 0.2),
             lambda: dsl.normal(0.1), lambda: dsl.truncated_normal(0.1)),
    _initial("Glorot", lambda: dsl.glorot_uniform, lambda: dsl.glorot_normal),
    _initial("He", lambda: dsl.he_uniform, lambda: dsl.he_normal),
    _initial("LeCun", lambda: dsl.lecun_uniform, lambda: dsl.lecun_normal),
    _initial("orthogonal", lambda: dsl.orthogonal()),
    _initial("identity", lambda: dsl.identity_matrix(), agrees="numpy"),
)  # fmt: skip


def _recipe(
    name: str, recipe: Callable[[], Recipe], section: str = RECIPES, **options: Any
) -> System:
    """The whole step, state and batch to state, as a function with gradients; ten of them."""
    if options.get("test"):
        options["test"] = f"tests/test_{options['test']}.py"
    return System(name, section, lambda: compose(recipe()).step, recipe, **options)


def _groups() -> Recipe:
    groups = {
        "*.bias": dsl.sgd(0.05),
        "hidden.*": dsl.adamw(0.01, weight_decay=0.2),
        "*": dsl.adamw(0.02, weight_decay=0.0),
    }
    return _descent(optimizer=groups)


def _two_losses() -> Recipe:
    hidden = dsl.minimize(params="hidden.*", optimizer=dsl.adam(0.01))
    out = dsl.minimize(params="out.*", optimizer=dsl.sgd(0.1))
    return dsl.training(network(), updates=[hidden, out], batch_size=8)


def _own_rule() -> Recipe:
    decay = dsl.assign("hidden.bias", lambda v: 0.9 * v["hidden.bias"] + 0.01 * v["loss"])
    return dsl.training(
        network(), updates=[dsl.minimize(optimizer=dsl.sgd(0.1)), decay], batch_size=8
    )


def _adapted() -> Recipe:
    @model
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> dict[str, Any]:
        y = x >> dsl.lora(dsl.Dense(8, dsl.tanh, name="hidden"), rank=2)
        return {"loss": dsl.mse(y >> dsl.Dense(2, name="out"), target)}

    return dsl.training(net, params="*.lora_*", optimizer=dsl.adam(0.05), batch_size=8)


def _check_transfer() -> None:
    """A head is trained on the hidden layer of another network, which stays as it was."""
    source = Trainer(_descent(seed=1))
    source.fit([data(16)], epochs=2)
    target = Trainer(_descent(freeze="hidden.*", seed=2))
    first = target.params
    report = target.load_params({p: x for p, x in source.state.items() if p.startswith("hidden.")})
    assert set(report.loaded) == {"hidden.weight", "hidden.bias"}
    target.fit([data(16)], epochs=STEPS)
    for path, x in target.params.items():
        known = source.params if path.startswith("hidden.") else first
        assert np.array_equal(x, known[path]) == path.startswith("hidden."), path


def _plain(optimizers: Any, p: dict[str, Any]) -> Any:
    return optimizers.SGD(list(p.values()), 0.1)


RECIPE_ROWS = (
    _recipe("parameter groups", _groups, agrees="torch", peer=descent(
        lambda o, p: o.SGD([p["hidden.bias"], p["out.bias"]], 0.05),
        lambda o, p: o.AdamW([{"params": [p["hidden.weight"]], "lr": 0.01, "weight_decay": 0.2},
                              {"params": [p["out.weight"]], "lr": 0.02, "weight_decay": 0.0}]))),
    _recipe("several optimizers in one model", _two_losses, agrees="its parts run one by one",
            test="recipe"),
    _recipe("a learning rule of one's own", _own_rule, agrees="numpy", test="recipe"),
    _recipe("gradient accumulation", lambda: _descent(accumulate=2), agrees="torch",
            batches=lambda recipe: [data(8, seed) for seed in range(STEPS)],
            peer=descent(_plain, every=2)),
    _recipe("recompute (gradient checkpointing)", lambda: _descent(recompute="hidden"),
            agrees="torch", peer=descent(_plain)),
    _recipe("freezing by name", lambda: _descent(freeze="hidden.*"), agrees="unchanged bits",
            test="freezing"),
    _recipe("EMA of weights", lambda: _descent(average=dsl.ema(0.9)), agrees="torch",
            test="averages"),
    _recipe("SWA of weights", lambda: _descent(average=dsl.swa(start=3, every=2)),
            agrees="its definition", test="averages"),
    _recipe("LoRA", _adapted, agrees="its definition", test="lora",
            example="examples/lora_digits.py"),
    System("transfer learning", RECIPES, run=_check_transfer, agrees="unchanged bits",
           test="tests/test_freezing.py", example="examples/transfer.py"),
)  # fmt: skip


def _clip(utils: Any, params: list[Any]) -> None:
    utils.clip_grad_value_(params, 0.2)
    for one in params:
        utils.clip_grad_norm_([one], 0.3)
    utils.clip_grad_norm_(params, 0.4)


def _penalised() -> Recipe:
    penalty = lambda p: dsl.l1(list(p.values()), 0.01) + dsl.l2(list(p.values()), 0.02)  # noqa: E731
    return dsl.training(network(penalty), optimizer=dsl.sgd(0.1), batch_size=8)


def _regular(name: str, recipe: Callable[[], Recipe], **options: Any) -> System:
    return _recipe(name, recipe, "Regularization", **options)


REGULAR_ROWS = (
    _regular("L1 and L2 penalty", _penalised, agrees="torch", peer=descent(
        _plain, penalty=lambda p: sum(0.01 * w.abs().sum() + 0.02 * (w * w).sum()
                                    for w in p.values()))),
    _regular("decoupled weight decay",
             lambda: _descent(optimizer=dsl.adamw(0.01, weight_decay=0.3)),
             agrees="torch", peer=descent(
                 lambda o, p: o.AdamW(list(p.values()), 0.01, weight_decay=0.3))),
    _regular("max-norm", lambda: _descent(max_norm=0.7), agrees="its definition",
             test="recipe_parameters"),
    _regular("clipping by value, norm, global norm",
             lambda: _descent(clip_value=0.2, clip_each_norm=0.3, clip_norm=0.4),
             agrees="torch", peer=descent(_plain, bound=_clip)),
    _regular("gradient noise", lambda: _descent(noise=0.01), agrees="its statistics",
             test="recipe_parameters"),
)  # fmt: skip

ROWS = (*GRADIENT_ROWS, *INITIAL_ROWS, *RECIPE_ROWS, *REGULAR_ROWS)
