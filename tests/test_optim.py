"""Optimizers, schedules and clipping: against torch, and against their formulas in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.errors import ModelError
from nncompile.graph import Input
from nncompile.ops.basic import Constant, const
from nncompile.optim import (
    Optimizer,
    adadelta,
    adagrad,
    adam,
    adamw,
    clip_by_norm,
    clip_by_value,
    constant,
    cosine,
    exponential,
    global_norm,
    lamb,
    lion,
    muon,
    nadam,
    radam,
    rmsprop,
    schedule,
    sgd,
    step_decay,
)
from nncompile.optim.muon import orthogonalised
from nncompile.optim.schedules import resolve
from nncompile.recipe import training
from nncompile.reference import evaluate
from nncompile.step import compose
from nncompile.train import Trainer
from nncompile.types import f32, f64, i64
from tests.small_models import data, perceptron
from tests.tolerances import assert_close

STEPS = 10


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def trained_by_torch(
    torch: Any, start: dict[str, Any], batches: list[dict[str, Any]], case: Case
) -> dict[str, Any]:
    """The parameters after the same steps in torch."""
    p = {path: torch.nn.Parameter(torch.from_numpy(x.copy())) for path, x in start.items()}
    optimizer = case.torch(torch.optim, list(p.values()))
    scheduler = case.schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, case.schedule)
    for batch in batches:
        x, target = (torch.from_numpy(batch[name]) for name in ("x", "target"))
        hidden = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"])
        loss = ((hidden @ p["out.weight"] - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if case.options.get("clip_value"):
            torch.nn.utils.clip_grad_value_(p.values(), case.options["clip_value"])
        if case.options.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_(p.values(), case.options["clip_norm"])
        if case.options.get("clip_each_norm"):
            for one in p.values():
                torch.nn.utils.clip_grad_norm_([one], case.options["clip_each_norm"])
        optimizer.step()
        if scheduler:
            scheduler.step()
    return {path: x.detach().numpy() for path, x in p.items()}


class Case:
    """One of our optimizers, and a function that makes the same of torch's."""

    def __init__(self, ours: Optimizer, torch: Any, schedule: Any = None, **options: float) -> None:
        self.ours, self.torch, self.schedule = ours, torch, schedule
        self.options: dict[str, Any] = options


CASES = {
    "sgd": Case(sgd(0.1), lambda o, p: o.SGD(p, 0.1)),
    "sgd, weight decay": Case(
        sgd(0.1, weight_decay=0.1), lambda o, p: o.SGD(p, 0.1, weight_decay=0.1)
    ),
    "sgd, scheduled": Case(
        sgd(step_decay(0.1, 3, 0.5)),
        lambda o, p: o.SGD(p, 0.1),
        schedule=lambda step: 0.5 ** (step // 3),
    ),
    "momentum": Case(sgd(0.1, momentum=0.9), lambda o, p: o.SGD(p, 0.1, momentum=0.9)),
    "momentum, weight decay": Case(
        sgd(0.1, momentum=0.9, weight_decay=0.1),
        lambda o, p: o.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    ),
    "momentum, scheduled": Case(
        sgd(exponential(0.1, 0.8), momentum=0.9),
        lambda o, p: o.SGD(p, 0.1, momentum=0.9),
        schedule=lambda step: 0.8**step,
    ),
    "nesterov": Case(
        sgd(0.1, momentum=0.9, nesterov=True),
        lambda o, p: o.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "nesterov, scheduled": Case(
        sgd(exponential(0.1, 0.8), momentum=0.9, nesterov=True),
        lambda o, p: o.SGD(p, 0.1, momentum=0.9, nesterov=True),
        schedule=lambda step: 0.8**step,
    ),
    "rmsprop": Case(rmsprop(0.01), lambda o, p: o.RMSprop(p, 0.01)),
    "rmsprop, momentum and weight decay": Case(
        rmsprop(0.01, momentum=0.5, weight_decay=0.1, epsilon=1e-3),
        lambda o, p: o.RMSprop(p, 0.01, momentum=0.5, weight_decay=0.1, eps=1e-3),
    ),
    "adam": Case(adam(0.01), lambda o, p: o.Adam(p, 0.01)),
    "adam, weight decay and epsilon": Case(
        adam(0.01, weight_decay=0.1, epsilon=1e-2),
        lambda o, p: o.Adam(p, 0.01, weight_decay=0.1, eps=1e-2),
    ),
    "adam, scheduled": Case(
        adam(cosine(0.01, warmup=3, steps=8)),
        lambda o, p: o.Adam(p, 0.01),
        schedule=lambda step: cosine(1.0, warmup=3, steps=8)(step),
    ),
    "adamw": Case(adamw(0.01, 0.1), lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1)),
    "adamw, scheduled": Case(
        adamw(step_decay(0.01, 4), 0.1),
        lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1),
        schedule=lambda step: 0.1 ** (step // 4),
    ),
    "adagrad": Case(adagrad(0.05), lambda o, p: o.Adagrad(p, 0.05)),
    "adagrad, all options": Case(
        adagrad(0.05, rate_decay=0.1, weight_decay=0.1, start=0.3, epsilon=1e-3),
        lambda o, p: o.Adagrad(
            p, 0.05, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3, eps=1e-3
        ),
    ),
    "adadelta": Case(adadelta(), lambda o, p: o.Adadelta(p)),
    "adadelta, all options": Case(
        adadelta(0.5, decay=0.8, epsilon=1e-4, weight_decay=0.1),
        lambda o, p: o.Adadelta(p, 0.5, rho=0.8, eps=1e-4, weight_decay=0.1),
    ),
    "rmsprop, centered": Case(
        rmsprop(0.01, centered=True, epsilon=1e-3),
        lambda o, p: o.RMSprop(p, 0.01, centered=True, eps=1e-3),
    ),
    "rmsprop, centered with momentum": Case(
        rmsprop(0.01, decay=0.9, centered=True, momentum=0.5, epsilon=1e-3),
        lambda o, p: o.RMSprop(p, 0.01, alpha=0.9, centered=True, momentum=0.5, eps=1e-3),
    ),
    "amsgrad": Case(adam(0.01, amsgrad=True), lambda o, p: o.Adam(p, 0.01, amsgrad=True)),
    "amsgrad, short memory": Case(
        adamw(0.01, 0.1, beta2=0.5, amsgrad=True),
        lambda o, p: o.AdamW(p, 0.01, betas=(0.9, 0.5), weight_decay=0.1, amsgrad=True),
    ),
    "nadam": Case(nadam(0.01), lambda o, p: o.NAdam(p, 0.01)),
    "nadam, weight decay": Case(
        nadam(0.01, weight_decay=0.1, momentum_decay=0.1),
        lambda o, p: o.NAdam(p, 0.01, weight_decay=0.1, momentum_decay=0.1),
    ),
    "nadam, decoupled and scheduled": Case(
        nadam(exponential(0.01, 0.8), weight_decay=0.1, decoupled=True),
        lambda o, p: o.NAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
        schedule=lambda step: 0.8**step,
    ),
    "radam": Case(radam(0.01), lambda o, p: o.RAdam(p, 0.01)),
    "radam, weight decay": Case(
        radam(0.01, beta2=0.9, weight_decay=0.1),
        lambda o, p: o.RAdam(p, 0.01, betas=(0.9, 0.9), weight_decay=0.1),
    ),
    "radam, decoupled": Case(
        radam(0.01, weight_decay=0.1, decoupled=True),
        lambda o, p: o.RAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "clip_each_norm": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_each_norm=0.1),
    "clip_norm": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_norm=0.3),
    "clip_value": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_value=0.05),
    "both clips, adam": Case(
        adam(0.01), lambda o, p: o.Adam(p, 0.01), clip_value=0.1, clip_norm=0.2
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_are_those_of_torch(torch: Any, name: str) -> None:
    case = CASES[name]
    recipe = training(perceptron(), optimizer=case.ours, **case.options)
    trainer = Trainer(recipe)
    start = trainer.params
    batches = [data(16, seed) for seed in range(STEPS)]
    trainer.fit(batches, epochs=1)
    # In double precision, so that what is measured is our rounding alone.
    wide = [{name: x.astype(np.float64) for name, x in batch.items()} for batch in batches]
    doubled = {path: x.astype(np.float64) for path, x in start.items()}
    expected = trained_by_torch(torch, doubled, wide, case)
    for path, x in trainer.params.items():
        assert not np.array_equal(x, start[path]), path
        assert_close(x, expected[path], "float32", path)


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_in_double_are_those_of_torch(torch: Any, name: str) -> None:
    """The formulas themselves, where rounding does not hide a difference."""
    case = CASES[name]
    step = compose(training(perceptron(f64), optimizer=case.ours, **case.options))
    state = step.initial(0)
    start = {path: state[path] for path in step.parameters}
    batches = [data(16, seed, "float64") for seed in range(STEPS)]
    for batch in batches:
        result = evaluate(step.step, {**state, **batch})
        state |= {path: result[following] for path, following in step.state_map.items()}
    # torch's clip_grad_norm_ divides by norm + 1e-6, its NAdam multiplies the momenta in float32,
    # and schedules here are float32.
    rounded = case.schedule is not None or case.options.keys() & {"clip_norm", "clip_each_norm"}
    rounded = rounded or name.startswith("nadam")
    tolerance = 3e-6 if rounded else 1e-10
    for path, x in trained_by_torch(torch, start, batches, case).items():
        np.testing.assert_allclose(state[path], x, tolerance, tolerance, err_msg=path)


# Optimizers that torch lacks, and Muon, whose iteration there is in bfloat16: transcriptions of the
# papers in numpy's float64. Each makes the next parameter of (w, g, slots, t), t from 1.


def lion_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    m = s.get("m", 0.0)
    update = np.sign(0.9 * m + (1 - 0.9) * g)
    s["m"] = 0.8 * m + (1 - 0.8) * g
    return w - 0.01 * (update + 0.1 * w)


def lamb_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
    update = m / (np.sqrt(v) + 1e-6) + 0.1 * w
    length, size = np.linalg.norm(w), np.linalg.norm(update)
    return w - 0.01 * (length / size if length and size else 1.0) * update


def adamw_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
    return w - 0.02 * (m / (np.sqrt(v) + 1e-8) + 0.1 * w)


def muon_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    if w.ndim != 2:
        return adamw_of_the_paper(w, g, s, t)
    s["b"] = 0.95 * s.get("b", 0.0) + 0.05 * g
    x = 0.05 * g + 0.95 * s["b"]
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    size = np.sqrt(max(1, w.shape[1] / w.shape[0]))
    return w * (1 - 0.02 * 0.1) - 0.02 * size * x


PAPERS = {
    "lion": (lion(0.01, beta2=0.8, weight_decay=0.1), lion_of_the_paper),
    "lamb": (lamb(0.01, weight_decay=0.1), lamb_of_the_paper),
    "muon": (muon(0.02), muon_of_the_paper),
}


@pytest.mark.parametrize("name", PAPERS)
def test_ten_steps_are_those_of_the_paper(name: str) -> None:
    """In double to 1e-9; in single precision through onnxruntime to the table's bound."""
    optimizer, paper = PAPERS[name]
    step = compose(training(perceptron(f64), optimizer=optimizer))
    trainer = Trainer(training(perceptron(), optimizer=optimizer))
    start = {path: x.astype(np.float64) for path, x in trainer.params.items()}
    state = step.initial(0) | start
    expected, slots = dict(start), {path: dict[str, Any]() for path in start}
    for t in range(1, STEPS + 1):
        batch = data(16, t, "float64")
        at = {**state, **expected, **batch}
        slopes = {path: evaluate(step.gradient, at)[f"{path}.grad"] for path in expected}
        expected = {p: paper(w, slopes[p], slots[p], t) for p, w in expected.items()}
        result = evaluate(step.step, {**state, **batch})
        state |= {path: result[following] for path, following in step.state_map.items()}
    trainer.fit([data(16, t) for t in range(1, STEPS + 1)], epochs=1)
    for path, x in expected.items():
        np.testing.assert_allclose(state[path], x, 1e-9, 1e-9, err_msg=path)
        # The orthogonal factor of a matrix of small singular values is less well conditioned.
        relative = 5e-5 if name == "muon" else 2e-5
        np.testing.assert_allclose(trainer.params[path], x, relative, relative / 10, err_msg=path)


def test_muon_is_that_of_torch(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the precision of the iteration, which is taken from here."""
    from torch.optim import _muon

    def iteration(g: Any, coefficients: Any, steps: int, epsilon: float) -> Any:
        value = orthogonalised(Input("g", f64[tuple(g.shape)])(), steps, epsilon, coefficients)
        return torch.from_numpy(evaluate(value, {"g": g.numpy()}))

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", iteration)
    random = np.random.default_rng(3)
    for adjust in ("original", "match_rms_adamw"):
        for nesterov in (True, False):
            ours = muon(0.1, momentum=0.9, nesterov=nesterov, adjust=adjust)
            start = random.normal(size=(4, 6))
            theirs = torch.nn.Parameter(torch.from_numpy(start.T.copy()))  # [out, in]
            options: Any = {"momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": adjust}
            optimizer = torch.optim.Muon([theirs], 0.1, **options)
            w, u = start, np.zeros((4, 6))
            leaves = [Input(n, f64[4, 6])() for n in ("w", "g", "u")]
            step = Input("step", i64[()], "state")()
            w_next, slots = ours.update(leaves[0], leaves[1], {"u": leaves[2]}, step)
            for i in range(STEPS):
                g = random.normal(size=(4, 6))
                feeds = {"w": w, "g": g, "u": u, "step": np.asarray(i)}
                w, u = evaluate([w_next, slots["u"]], feeds)
                theirs.grad = torch.from_numpy(g.T.copy())
                optimizer.step()
            np.testing.assert_allclose(w, theirs.detach().numpy().T, 1e-9, 1e-9)


def test_the_slots_of_each_optimizer() -> None:
    slots = {
        name: set(compose(training(perceptron(), optimizer=case.ours)).state)
        for name, case in CASES.items()
    }
    paths = {"hidden.weight", "hidden.bias", "out.weight"}
    assert slots["sgd"] == {"step", "seed"} | paths
    assert slots["momentum"] - slots["sgd"] == {f"{path}.u" for path in paths}
    assert slots["adam"] - slots["sgd"] == {f"{p}.{slot}" for p in paths for slot in "mv"}


def learning_rate(rate: Any, step: int) -> float:
    """A schedule as the graph computes it."""
    value = resolve(rate, Input("step", i64[()], "state")(), f32)
    assert not isinstance(value, float)
    return float(evaluate(value, {"step": np.asarray(step, np.int64)}))


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9, 10, 99, 100, 150, 10**6])
def test_schedules_follow_their_formulas(step: int) -> None:
    def expected_cosine(t: int) -> float:
        if t < 10:
            return 0.3 * (t + 1) / 10
        progress = min((t - 10) / 90, 1.0)
        return 0.03 + 0.27 * (1 + math.cos(math.pi * progress)) / 2

    expected = {
        step_decay(0.3, 5, 0.5): 0.3 * 0.5 ** (step // 5),
        exponential(0.3, 0.9, every=2): 0.3 * 0.9 ** (step / 2),
        cosine(0.3, warmup=10, steps=100, final=0.03): expected_cosine(step),
        schedule(lambda t: 0.3 / (1 + t)): 0.3 / (1 + step),
    }
    for rate, number in expected.items():
        assert rate(step) == pytest.approx(number, rel=1e-9, abs=1e-300)
        assert learning_rate(rate, step) == pytest.approx(number, rel=1e-5, abs=1e-9)


def test_a_constant_schedule_is_a_number() -> None:
    step = Input("step", i64[()], "state")()
    assert resolve(constant(0.25), step, f32) == 0.25
    assert resolve(0.25, step, f32) == 0.25
    assert constant(0.25)(7) == 0.25
    assert isinstance(resolve(lambda step: const(0.25), step, f32), float)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd(-0.1),
        lambda: sgd(math.nan),
        lambda: sgd(0.1, momentum=1.0),
        lambda: sgd(0.1, nesterov=True),
        lambda: adam(beta1=1.0),
        lambda: adam(beta2=-0.1),
        lambda: adamw(weight_decay=-1.0),
        lambda: rmsprop(decay=1.5),
        lambda: adagrad(start=-1.0),
        lambda: adadelta(decay=1.0),
        lambda: lion(beta2=1.0),
        lambda: nadam(momentum_decay=-1),
        lambda: muon(rounds=0),
        lambda: muon(adjust="none"),
        lambda: cosine(0.1, steps=10, warmup=10),
        lambda: cosine(0.1, steps=0),
        lambda: exponential(-0.1, 0.9),
        lambda: step_decay(0.1, 0),
        lambda: sgd("0.1"),
        lambda: sgd(None),
        lambda: sgd(np.ones(2)),
        lambda: adam(1e-3, (0.9, 0.99)),
        lambda: adamw(weight_decay="1"),
        lambda: cosine("0.1", steps=10),
        lambda: cosine(0.1, steps="10"),
        lambda: constant(True),
    ],
)
def test_figures_out_of_range_are_told(make: Any) -> None:
    with pytest.raises(ModelError, match=r"must|needs"):
        make()


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, float])
def test_figures_may_be_those_of_numpy(number: Any) -> None:
    for made in (sgd(number(0.1), momentum=number(0.9)), sgd(0.1, 0.9)):
        assert made == sgd(0.1, momentum=0.9)
        assert type(made.rate) is float
    assert constant(number(0.1))(3) == pytest.approx(0.1, rel=1e-12)


def test_a_schedule_with_axes_is_told() -> None:
    step = Input("step", i64[()], "state")()
    with pytest.raises(ModelError, match="one number"):
        resolve(lambda step: const([0.1, 0.2]), step, f32)


def clipped(clip: Any, *gradients: Any, bound: float) -> list[Any]:
    arrays = {f"g{i}": np.asarray(g, np.float32) for i, g in enumerate(gradients)}
    leaves = {name: Input(name, f32[x.shape])() for name, x in arrays.items()}
    return list(evaluate(clip(leaves, bound), arrays).values())


def test_clipping_by_norm() -> None:
    first, second = clipped(clip_by_norm, [3.0, 0.0], [[4.0]], bound=1.0)
    np.testing.assert_allclose(first, [0.6, 0.0], 1e-6)
    np.testing.assert_allclose(second, [[0.8]], 1e-6)
    within = clipped(clip_by_norm, [0.3, 0.0], [[0.4]], bound=1.0)
    np.testing.assert_array_equal(within[0], np.float32([0.3, 0.0]))
    (zero,) = clipped(clip_by_norm, [0.0, 0.0], bound=1.0)
    np.testing.assert_array_equal(zero, [0.0, 0.0])
    assert np.isnan(clipped(clip_by_norm, [np.nan, 1.0], bound=1.0)[0]).all()


def test_clipping_by_value() -> None:
    (g,) = clipped(clip_by_value, [-3.0, 0.5, 3.0, np.nan], bound=1.0)
    np.testing.assert_array_equal(g, np.float32([-1.0, 0.5, 1.0, np.nan]))


def test_the_norm_does_not_depend_on_the_order_of_the_parameters() -> None:
    a, b = Input("a", f32[3])(), Input("b", f32[2])()
    assert global_norm({"a": a, "b": b}) is global_norm({"b": b, "a": a})


def test_a_zero_gradient_leaves_the_parameter() -> None:
    w, step = Input("w", f32[2], "parameter")(), Input("step", i64[()], "state")()
    start = np.float32([1.0, -2.0])
    zeros = np.zeros(2, np.float32)
    several = (sgd(0.1, momentum=0.9), rmsprop(), rmsprop(centered=True), adagrad(), adadelta())
    for optimizer in (*several, adam(), adam(amsgrad=True), nadam(), radam(), lion(), lamb(0.1, 0)):
        first = optimizer.initial(w)
        slots = {slot: Input(slot, x.type, "state")() for slot, x in first.items()}
        following, _ = optimizer.update(w, Input("g", f32[2])(), slots, step)
        feeds = {"w": start, "g": zeros, "step": np.zeros((), np.int64)}
        held = dict(zip(first, evaluate(list(first.values()), {"w": start}), strict=True))
        result = evaluate(following, feeds | held)
        np.testing.assert_array_equal(result, start)


def test_a_number_is_a_literal_of_the_graph() -> None:
    """So that passes can put it into a matrix product."""
    step = compose(training(perceptron(), optimizer=sgd(0.25)))
    assert not any(isinstance(v.op, Constant) for v in step.update.nodes if v.dtype is f32)
