"""What recipes offer beside updates: accumulation, averages, freezing, transfer, noise, bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, Dropout, Layer, f32, model, mse, parameter, relu, tanh
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64
from nncompile.optim import adafactor, adam, adamw, asgd, lbfgs, plateau, sgd, step_decay
from nncompile.program.model import Model
from nncompile.program.recipe import assign, ema, frozen_layers, maximize, minimize, swa, training
from nncompile.program.step import compose
from nncompile.runtime import Session
from nncompile.train import Trainer
from nncompile.train.transfer import transfer
from tests.leaves import leaf
from tests.small_models import data, perceptron
from tests.tolerances import assert_close


def run(step: Any, state: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """The state after one step, in numpy."""
    result = evaluate(step.step, {**state, **batch})
    return state | {path: result[following] for path, following in step.state_map.items()}


# Accumulation


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(0.1, 0.9),
        sgd(0.1, 0.9, dampening=0.5),
        adam(step_decay(0.01, 2)),
        adamw(0.01),
        adafactor(step_decay(0.1, 2)),
        asgd(0.1, lambd=0.1, t0=1),
        lbfgs(0.3),
    ],
)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_four_batches_of_sixteen_are_one_of_64(optimizer: Any, clip: float | None) -> None:
    """Three updates, in float64; only the order of the sums differs."""
    recipe = training(perceptron(f64), optimizer=optimizer, clip_norm=clip, average=ema(0.5))
    parts = training(
        perceptron(f64), optimizer=optimizer, clip_norm=clip, average=ema(0.5), accumulate=4
    )
    whole, micro = compose(recipe), compose(parts)
    one, other = whole.initial(1), micro.initial(1)
    for i in range(3):
        batch = data(64, i, "float64")
        one = run(whole, one, batch)
        for k in range(4):
            before = other
            other = run(micro, other, {n: x[16 * k : 16 * k + 16] for n, x in batch.items()})
            changed = not np.array_equal(before["out.weight"], other["out.weight"])
            assert changed == (k == 3)
    for path in one.keys() - {"step"}:
        np.testing.assert_allclose(other[path], one[path], 1e-10, 1e-12, err_msg=path)
    assert other["step"] == 12
    assert not other["out.weight.accumulated"].any()


def mean_of_examples(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    error = (x >> Dense(2, name="out")) - target
    return {"loss": (error * error).mean()}


def mean_and_penalty(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    w = parameter("w", (4, 2), dtype=f64)
    return {"loss": mse(x @ w, target) + 0.1 * (w * w).sum()}


def mean_of_what_a_mask_leaves(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse(x >> Dense(2, name="out"), target, mask=x[:, 0] > 0.8)}


def mean_of_tokens(x: Any = f64["batch", "time", 4], target: Any = f64["batch", "time", 2]) -> Any:
    return {"loss": mse(x >> Dense(2, name="out"), target)}


@pytest.mark.parametrize(
    "function", [mean_of_examples, mean_and_penalty, mean_of_what_a_mask_leaves, mean_of_tokens]
)
def test_batches_of_unequal_sizes_are_one_of_all_their_examples(function: Any) -> None:
    net = model(function)
    options: dict[str, Any] = {"optimizer": sgd(0.1, 0.9), "clip_norm": 0.5}
    whole = compose(training(net, **options))
    parts = compose(training(net, accumulate=4, **options))
    one, other = whole.initial(1), parts.initial(1)
    for i in range(2):
        sizes = (16, 5, 16, 3) if i else (16, 16, 16, 5)
        batch = data(sum(sizes), i, "float64")
        batch["x"][16:21, 0] = 0.0  # where the mask leaves nothing of a batch
        ends = np.cumsum(sizes)
        pieces = [
            {n: x[b - a : b] for n, x in batch.items()} for a, b in zip(sizes, ends, strict=True)
        ]
        if function is mean_of_tokens:
            batch = {n: x[None] for n, x in batch.items()}
            pieces = [{n: x[None] for n, x in piece.items()} for piece in pieces]
            pieces[0] = {n: x.reshape(4, 4, -1) for n, x in pieces[0].items()}
        one = run(whole, one, batch)
        for piece in pieces:
            other = run(parts, other, piece)
        assert one["step"] * 4 == other["step"]
        for path in one.keys() - {"step"}:
            np.testing.assert_allclose(other[path], one[path], 1e-12, 1e-14, err_msg=path)
    assert other["training.loss.accumulated"] == 0


def test_batches_without_any_weight_change_nothing() -> None:
    step = compose(training(model(mean_of_what_a_mask_leaves), accumulate=2))
    start = state = step.initial(0)
    batch = {n: np.zeros_like(x) for n, x in data(8, 0, "float64").items()}
    for _ in range(2):
        state = run(step, state, batch)
    np.testing.assert_array_equal(state["out.weight"], start["out.weight"])


def test_a_sum_of_a_masked_mean_and_a_penalty_weighs_by_the_mask() -> None:
    def function(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
        w = parameter("w", (4, 2), dtype=f64)
        return {"loss": mse(x @ w, target, mask=x[:, 0] > 0) + (w * w).sum()}

    step = compose(training(model(function), optimizer=sgd(1.0), accumulate=2))
    start = state = step.initial(0)
    batch = data(15, 0, "float64")
    gradient = evaluate(step.gradient, {**start, **batch})["w.grad"]
    for piece in ({n: x[:12] for n, x in batch.items()}, {n: x[12:] for n, x in batch.items()}):
        state = run(step, state, piece)
    np.testing.assert_allclose(start["w"] - state["w"], gradient, 1e-12)


def test_the_halves_of_an_accumulating_step_are_the_step() -> None:
    """What a batch weighs is handed from `gradient` to `update`."""
    step = compose(training(model(mean_of_what_a_mask_leaves), accumulate=2))
    state = apart = step.initial(0)
    for i, count in enumerate((9, 4)):
        batch = data(count, i, "float64")
        given = evaluate(step.gradient, {**apart, **batch})
        assert given["loss.batch_weight"] == (batch["x"][:, 0] > 0.8).sum() * 2
        found = {**given, **evaluate(step.update, {**apart, **given})}
        apart = apart | {path: found[n] for path, n in step.state_map.items()}
        state = run(step, state, batch)
    for path, x in state.items():
        np.testing.assert_allclose(apart[path], x, 1e-12, err_msg=path)
    assert not np.array_equal(state["out.weight"], step.initial(0)["out.weight"])


def test_a_last_batch_that_is_smaller_is_accumulated_by_onnxruntime() -> None:
    one = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=53))
    other = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=16, accumulate=4))
    for trainer in (one, other):
        trainer.fit(data(53), epochs=5, shuffle=False)
    for path, x in one.params.items():
        np.testing.assert_allclose(other.params[path], x, 1e-4, 1e-5, err_msg=path)


def test_accumulation_trains_through_onnxruntime() -> None:
    examples = data(64)
    one = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=64))
    other = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=16, accumulate=4))
    one.fit(examples, epochs=5, shuffle=False)
    other.fit(examples, epochs=5, shuffle=False)
    for path, x in one.params.items():
        np.testing.assert_allclose(other.params[path], x, 1e-4, 1e-5, err_msg=path)


def test_the_mean_gradient_of_two_processes_is_that_of_one() -> None:
    """`gradient` on each half of a batch, the mean of both in `update`: the step on the whole."""
    step = compose(training(perceptron(f64), optimizer=adam(0.01), clip_norm=0.1))
    state, batch = step.initial(0), data(32, 0, "float64")
    halves = [
        evaluate(step.gradient, {**state, **{n: x[k : k + 16] for n, x in batch.items()}})
        for k in (0, 16)
    ]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    result = evaluate(step.update, {**state, **mean})
    for path, x in run(step, state, batch).items():
        if path in step.state_map:
            np.testing.assert_allclose(result[f"{path}.next"], x, 1e-12, 1e-14, err_msg=path)


# Averages


def weights_of(recipe: Any, steps: int) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer after so many steps, and the parameters after each."""
    trainer, found = Trainer(recipe), []
    for i in range(steps):
        trainer.fit([data(16, i)], epochs=1)
        found.append(trainer.params)
    return trainer, found


def test_an_exponential_average_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    trainer, weights = weights_of(training(perceptron(), average=ema(0.9)), 8)
    path = "out.weight"
    module = torch.nn.Linear(8, 2, bias=False)
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for w in weights:
        module.weight.data = torch.from_numpy(w[path].T.copy())
        averaged.update_parameters(module)
    assert_close(trainer.state[f"{path}.ema"], averaged.module.weight.data.numpy().T, "float32")


def test_a_mean_of_the_weights_begins_late_and_skips() -> None:
    trainer, weights = weights_of(training(perceptron(), average=swa(start=3, every=2)), 9)
    path = "hidden.weight"
    expected = np.mean([weights[i][path] for i in (3, 5, 7)], axis=0)
    assert_close(trainer.state[f"{path}.swa"], expected, "float32")
    early, weights = weights_of(training(perceptron(), average=swa(start=3)), 2)
    assert_close(early.state[f"{path}.swa"], weights[-1][path], "float32")


def test_averages_predict_evaluate_and_are_exported(tmp_path: Path) -> None:
    rate = plateau(0.1, "loss")
    recipe = training(perceptron(), optimizer=sgd(rate, 0.9), average=[ema(0.9), swa()])
    trainer, _ = weights_of(recipe, 5)
    averaged = trainer.averaged("ema")
    assert np.array_equal(averaged["out.weight"], trainer.state["out.weight.ema"])
    batch = data(6)
    (file,) = export(recipe, tmp_path / "ema.onnx", params=averaged)
    (plain,) = export(recipe, tmp_path / "plain.onnx", params=trainer.state)
    with_average = trainer.predict(batch["x"], params=averaged)["y"]
    assert_close(Session(file.read_bytes()).run({"x": batch["x"]})["y"], with_average, "float32")
    assert_close(
        Session(plain.read_bytes()).run({"x": batch["x"]})["y"],
        trainer.predict(batch["x"])["y"],
        "float32",
    )
    assert not np.allclose(with_average, trainer.predict(batch["x"])["y"])
    loss = trainer.evaluate(batch, params=averaged)["loss"]
    assert loss == pytest.approx(np.mean((with_average - batch["target"]) ** 2), rel=1e-5)
    files = export(recipe, tmp_path / "step.onnx", to="step", params=trainer.state)
    assert all(file.exists() for file in files)
    with pytest.raises(ModelError, match="keeps no average 'mean'"):
        trainer.averaged("mean")


def test_averages_are_chosen_by_name() -> None:
    averages = [ema(0.5), ema(0.9), swa(params="out.*")]
    trainer, _ = weights_of(training(perceptron(), average=averages), 4)
    for name in ("ema", "ema.2", "swa"):
        found, state = trainer.averaged(name), trainer.state
        assert np.array_equal(found["out.weight"], state[f"out.weight.{name}"])
    assert not np.array_equal(found["out.weight"], state["out.weight"])
    assert np.array_equal(found["hidden.weight"], state["hidden.weight"])
    with pytest.raises(ModelError, match=r"3 averages of the weights: ema, ema\.2, swa"):
        trainer.averaged()
    with pytest.raises(ModelError, match=r"no average 'ema2'(.|\n)*did you mean 'ema\.2'"):
        trainer.averaged("ema2")
    only, _ = weights_of(training(perceptron(), average=swa()), 2)
    assert np.array_equal(only.averaged()["out.weight"], only.state["out.weight.swa"])
    with pytest.raises(ModelError, match=r"keeps no average of the weights(.|\n)*average=ema"):
        Trainer(training(perceptron())).averaged()


def test_a_saved_state_goes_on_with_its_averages(tmp_path: Path) -> None:
    recipe = training(perceptron(), optimizer=adam(), average=ema(0.9), accumulate=2)
    one, other = Trainer(recipe), Trainer(recipe, seed=5)
    one.fit([data(16, i) for i in range(3)], epochs=1, shuffle=False)
    other.load(one.save(tmp_path / "state.safetensors"))
    for trainer in (one, other):
        trainer.fit([data(16, i) for i in range(3)], epochs=1, shuffle=False)
    for path, x in one.state.items():
        np.testing.assert_array_equal(other.state[path], x, err_msg=path)


# Freezing and transfer


class Backbone(Layer):
    def __call__(self, x: Any) -> Any:
        return x >> Dense(8) >> BatchNorm() >> relu >> Dropout(0.5)


def with_backbone(head: str = "head", name: str = "backbone") -> Model:
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> Any:
        features = x >> Backbone(name=name)
        return {"features": features, "loss": mse(features >> Dense(2, name=head), target)}

    return model(net)


def test_what_is_frozen_stays_statistics_included() -> None:
    trainer = Trainer(training(with_backbone(), freeze="backbone.*", optimizer=adam(0.1)))
    start = trainer.state
    trainer.fit([data(16, i) for i in range(4)], epochs=1)
    for path, x in trainer.state.items():
        same = np.array_equal(x, start[path])
        assert same == (path.startswith("backbone.") or path == "seed"), path
    # Trained as it is used: the loss of the step is that of evaluation, without dropout.
    loss = trainer.evaluate(data(16, 9))["loss"]
    history = trainer.fit([data(16, 9)], epochs=1)
    assert history.epochs[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_what_is_not_frozen_learns_statistics_included() -> None:
    trainer = Trainer(training(with_backbone(), freeze="backbone.dense.*"))
    start = trainer.state
    trainer.fit([data(16)], epochs=1)
    moved = {path for path, x in trainer.state.items() if not np.array_equal(x, start[path])}
    assert not any(path.startswith("backbone.dense") for path in moved)
    assert {path for path in start if path.startswith("backbone.batch_norm")} <= moved


def test_frozen_layers_are_those_of_which_nothing_is_free() -> None:
    paths = ["a.w", "a.b.w", "a.b.c.w", "d.w", "d.e.w", "w"]
    assert frozen_layers(paths, ["a.*"]) == ["a"]
    assert frozen_layers(paths, ["a.b.*", "d.e.w"]) == ["a.b", "d.e"]
    assert frozen_layers(paths, ["*.w"]) == ["a", "d"]
    assert frozen_layers(paths, ["a.w"]) == []


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (
            lambda m: training(m, freeze="backbon.*"),
            "training: freeze='backbon.*' matches no",
        ),
        (lambda m: training(m, freeze="*"), r"all parameters that '\*' matches are frozen"),
        (lambda m: training(m, freeze=3), "freeze must be one or more patterns"),
        (lambda m: training(m, accumulate=0), "accumulate must be"),
        (lambda m: training(m, max_norm=0.0), "max_norm must be positive"),
        (lambda m: training(m, noise=-1.0), "noise must be positive"),
        (lambda m: training(m, average=ema(1.0)), "decay must be"),
        (lambda m: training(m, average=swa(params="tail.*")), "matches 'tail"),
        (lambda m: training(m, average=3), "3 is not an update"),
    ],
)
def test_a_recipe_that_cannot_be_met_is_told(declare: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        declare(with_backbone())


def test_parameters_of_another_model_by_name() -> None:
    source = Trainer(training(with_backbone("other_head", "encoder"), seed=1))
    source.fit([data(16)], epochs=1)
    target = Trainer(training(with_backbone(), seed=2))
    before = target.state
    report = target.load_params(source, rename={"encoder.": "backbone."})
    assert report.loaded == tuple(p for p in target.state if p.startswith("backbone."))
    assert report.missing == ("head.weight", "head.bias")
    assert report.unused == ("other_head.weight", "other_head.bias")
    assert not report.whole
    assert str(report).startswith(f"{len(report.loaded)} loaded; 2 missing (head.weight")
    for path, x in target.state.items():
        old = path.replace("backbone.", "encoder.")
        known = source.state[old] if path.startswith("backbone.") else before[path]
        np.testing.assert_array_equal(x, known, err_msg=path)
    np.testing.assert_array_equal(
        target.predict(data(4)["x"])["features"], source.predict(data(4)["x"])["features"]
    )
    with pytest.raises(
        ModelError, match=f"do not fit: {len(report.loaded)} loaded, 2 missing, 2 unused"
    ):
        target.load_params(source, strict=True, rename={"encoder.": "backbone."})
    with pytest.raises(ModelError, match="0 loaded"):
        target.load_params({"x": np.zeros(3)})


def test_transfers_tell_what_differs(tmp_path: Path) -> None:
    trainer = Trainer(training(with_backbone(), seed=1))
    file = trainer.save(tmp_path / "a.safetensors")
    other = Trainer(training(with_backbone(), seed=2))
    assert other.load_params(file, strict=True).whole
    source = {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(1, np.float32)}
    target = {"a": np.zeros(2), "b": np.zeros(3), "d": np.zeros(1)}
    found, report = transfer(source, target, lambda path: None if path == "c" else path)
    assert list(found) == ["a"]
    assert (report.missing, report.unused, report.different) == (("d",), ("c",), ("b",))
    with pytest.raises(ModelError, match="two arrays the path 'a'"):
        transfer(source, target, {"b": "a"})
    assert transfer({"e.f.a": np.ones(2)}, target, {"e.": "x.", "e.f.": ""})[1].loaded == ("a",)


# Gradients and parameters


def test_up_the_gradient_is_down_that_of_the_negative() -> None:
    w, x = leaf("w", f32[3], "parameter"), leaf("x", f32["n", 3])
    reward = (tanh(x @ w)).mean()
    start = {"w": full((3,), 0.1)}
    net = Model("m", Graph("m", {"reward": reward, "loss": -reward}, (x, w)), start)
    up = compose(training(net, updates=[maximize(optimizer=adam(0.1))]))
    down = compose(training(net, updates=minimize(optimizer=adam(0.1))))
    batch = {"x": data(8)["x"][:, :3]}
    one, other = (run(s, s.initial(0), batch) for s in (up, down))
    np.testing.assert_allclose(one["w"], other["w"], 1e-6)
    assert one["w"][0] != 0.1


def test_noise_has_its_variance_and_its_decay() -> None:
    w, x = leaf("w", f64[20_000], "parameter"), leaf("x", f64[()])
    net = Model("m", Graph("m", {"loss": (x * w).sum()}, (x, w)), {"w": full((20_000,), 0.0, f64)})
    step = compose(training(net, optimizer=sgd(1.0), noise=0.3))
    state = step.initial(0)
    drawn = []
    for t in range(3):
        before = state["w"]
        state = run(step, state, {"x": np.zeros(())})
        drawn.append(before - state["w"])
        assert drawn[-1].var() == pytest.approx(0.3 / (1 + t) ** 0.55, rel=0.05)
        assert abs(drawn[-1].mean()) < 4 * (0.3 / 20_000) ** 0.5
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.04


def test_the_norm_of_what_enters_a_unit_is_held() -> None:
    free = Trainer(training(perceptron(), optimizer=sgd(0.5)))
    held = Trainer(training(perceptron(), optimizer=sgd(0.5), max_norm=0.7))
    for trainer in (free, held):
        trainer.fit([data(16)], epochs=1)
    for path in ("hidden.weight", "out.weight"):
        norms = np.linalg.norm(free.params[path], axis=0)
        assert (norms > 0.7).any()
        expected = free.params[path] * np.minimum(1, 0.7 / norms)
        assert_close(held.params[path], expected, "float32", path)
    assert_close(held.params["hidden.bias"], free.params["hidden.bias"], "float32")


def test_groups_of_parameters_have_rates_decays_and_rules_of_their_own() -> None:
    torch = pytest.importorskip("torch")
    groups = {
        "*.bias": sgd(0.05),
        "hidden.*": adamw(0.01, weight_decay=0.2),
        "*": adamw(0.02, weight_decay=0.0),
    }
    trainer = Trainer(training(perceptron(), optimizer=groups))
    p = {path: torch.nn.Parameter(torch.from_numpy(x)) for path, x in trainer.params.items()}
    several = [
        torch.optim.SGD([p["hidden.bias"]], 0.05),
        torch.optim.AdamW(
            [
                {"params": [p["hidden.weight"]], "lr": 0.01, "weight_decay": 0.2},
                {"params": [p["out.weight"]], "lr": 0.02, "weight_decay": 0.0},
            ]
        ),
    ]
    for i in range(10):
        batch = data(16, i)
        trainer.fit([batch], epochs=1)
        x, target = (torch.from_numpy(batch[name]) for name in ("x", "target"))
        hidden = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"])
        loss = ((hidden @ p["out.weight"] - target) ** 2).mean()
        for optimizer in several:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in several:
            optimizer.step()
    for path, x in trainer.params.items():
        assert_close(x, p[path].detach().numpy(), "float32", path)


def test_rules_are_made_at_every_step_of_an_accumulation() -> None:
    net = perceptron()
    updates = [minimize(), assign("hidden.bias", lambda v: v["hidden.bias"] + 1)]
    trainer = Trainer(training(net, updates=updates, accumulate=3))
    start = trainer.params["hidden.bias"]
    trainer.fit([data(16), data(16)], epochs=1)
    np.testing.assert_allclose(trainer.params["hidden.bias"], start + 2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"noise": 0.1}, {"average": ema(0.9)}, {"max_norm": 1.0}])
def test_accumulation_goes_with_recomputing(options: dict[str, Any]) -> None:
    @model
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> dict[str, Any]:
        h = x >> Dense(8, relu, name="a") >> Dense(8, relu, name="b") >> Dense(8, relu, name="c")
        return {"loss": mse(h >> Dense(2, name="d"), target)}

    kept, again = (
        Trainer(training(net, optimizer=adam(), accumulate=2, recompute=layers, **options))
        for layers in ((), ["a", "b"])
    )
    for trainer in (kept, again):
        trainer.fit([data(16, i) for i in range(4)], epochs=1, shuffle=False)
    for path, x in kept.state.items():
        assert_close(again.state[path], x, "float32")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (("*.bais", "*"), r"'\*\.bais' matches no parameter of model(.|\n)*mean '\*\.bias'"),
        (("hiden.*", "*"), r"'hiden\.\*'(.|\n)*out\.weight(.|\n)*did you mean 'hidden"),
        (("*", "*.bias"), r"'\*\.bias' is never used: '\*'(.|\n)*put '\*\.bias' first"),
    ],
)
def test_groups_of_no_parameters_are_told(groups: tuple[str, ...], words: str) -> None:
    optimizers = {pattern: sgd(0.1 * i) for i, pattern in enumerate(groups)}
    with pytest.raises(ModelError, match=words):
        training(perceptron(), optimizer=optimizers)


def test_groups_may_overlap_be_frozen_and_leave_nothing_over() -> None:
    rates = {"hidden.*": sgd(0.1), "*.weight": sgd(0.2), "*": sgd(0.3)}
    assert training(perceptron(), optimizer=rates, freeze="hidden.*").freeze == ("hidden.*",)
    update = training(perceptron(), optimizer=rates).updates[0]
    assert update.optimizer_of("hidden.weight").lr == 0.1
    assert update.optimizer_of("out.weight").lr == 0.2


def test_what_differs_in_shape_or_element_type_is_not_transferred() -> None:
    target = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32), "c": np.zeros(2)}
    source = {"a": np.ones(2, np.float32), "b": np.ones(2), "c": np.ones((2, 1))}
    found, report = transfer(source, target)
    assert found.keys() == {"a"}
    assert (report.loaded, report.different) == (("a",), ("b", "c"))
    with pytest.raises(ModelError, match="2 of another type"):
        transfer(source, target, strict=True)
