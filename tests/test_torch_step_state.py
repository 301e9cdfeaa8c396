"""The state of a training step in TorchScript: in files, read, set and begun anew."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nncompile.compiler.export import export
from nncompile.ir.interpreter import evaluate
from tests.torch_recipes import RECIPES, batch_of, stepped, tensors


def test_a_file_keeps_the_state(torchscript: SimpleNamespace, tmp_path: Path) -> None:
    torch, recipe = torchscript.torch, RECIPES["images"]()
    (path,) = export(recipe, tmp_path / "step.pt", to="torchscript-step", seed=3)
    module = torch.jit.load(path)
    batch = tensors(torchscript, batch_of(recipe.model, 0, 4))
    for _ in range(3):
        module.train_step(*batch)
    module.save(path)
    again = torch.jit.load(path)
    assert again.step == 3 and again.seed == 3
    for _ in range(2):
        module.train_step(*batch)
        again.train_step(*batch)
    for name, x in module.get_state().items():
        assert torch.equal(again.get_state()[name], x), name
    names = dict(again.named_parameters())
    assert list(names) == list(recipe.model.parameters)
    buffers = dict(again.named_buffers())
    assert {"step", "seed", "norm.running_mean", "slots.head.weight.m"} <= buffers.keys()
    about = json.loads(again.nncompile)
    assert about["kind"] == "step" and about["batch"]["label"] == ["int64", ["batch"]]
    assert sorted(about["state"]) == sorted(again.get_state())


def test_it_predicts_and_evaluates_as_it_is_used(torchscript: SimpleNamespace) -> None:
    """Without dropout, by running statistics; and what was trained can be exported to ONNX."""
    recipe = RECIPES["images"]()
    module, compiled, _ = stepped(torchscript, recipe)
    batch = batch_of(recipe.model, 0, 6)
    for _ in range(5):
        module.train_step(*tensors(torchscript, batch))
    weights = {name: x.numpy() for name, x in module.get_state().items()}
    weights = {n: x for n, x in weights.items() if n in compiled.source.evaluate.leaves}
    expected = compiled.source.evaluate
    predicted = module(torchscript.torch.from_numpy(batch["image"]))
    metrics = module.evaluate(*tensors(torchscript, batch))
    found = evaluate(expected, {**weights, **batch})
    assert list(metrics) == ["loss", "accuracy"]
    for name in metrics:
        np.testing.assert_allclose(metrics[name].detach(), found[name], 1e-5, 1e-6)
    logits = predicted["logits"].detach().numpy()
    assert (logits.argmax(1) == batch["label"]).mean() == pytest.approx(metrics["accuracy"].item())


def test_state_can_be_read_set_and_begun_anew(torchscript: SimpleNamespace) -> None:
    torch, recipe = torchscript.torch, RECIPES["accumulated"]()
    module, compiled, first = stepped(torchscript, recipe)
    batch = tensors(torchscript, batch_of(recipe.model, 0, 4))
    module.train_step(*batch)
    kept = module.get_state()
    for _ in range(3):
        module.train_step(*batch)
    assert not torch.equal(module.get_state()["out.weight"], kept["out.weight"])
    module.set_state(kept)
    assert all(torch.equal(x, kept[name]) for name, x in module.get_state().items())
    for seed in (0, 5):
        module.reset(seed)
        expected = compiled.source.initial(seed)
        for name, x in module.get_state().items():
            np.testing.assert_allclose(x.numpy(), expected[name], 2e-6, 1e-6, err_msg=name)
    module.set_state({name: torch.from_numpy(x) for name, x in first.items()})
    assert module.step == 0
    for change, message in (
        (lambda s: s.pop("out.weight"), "the state lacks out.weight"),
        (lambda s: s.update(other=kept["step"]), "no state other"),
        (lambda s: s.update({"out.weight": kept["out.weight"][:1]}), "another shape"),
        (lambda s: s.update({"out.weight": kept["out.weight"].double()}), "element type"),
    ):
        wrong = dict(kept)
        change(wrong)
        with pytest.raises(torch.jit.Error, match=message):
            module.set_state(wrong)
    assert module.step == 0


def test_batches_that_do_not_fit_change_nothing(torchscript: SimpleNamespace) -> None:
    torch, recipe = torchscript.torch, RECIPES["images"]()
    module, _, _ = stepped(torchscript, recipe)
    before = module.get_state()
    image, label = torch.zeros(4, 2, 6, 6), torch.zeros(4, dtype=torch.int64)
    for batch, message in (
        ((image.double(), label), "'image' is f32.batch, 2, 6, 6., got another element"),
        ((image[0], label), "'image' is .*, got the shape .2, 6, 6."),
        ((image[:, :1], label), "'image' is .*, got the shape .4, 1, 6, 6."),
        ((image, label[:1]), "'label' is i64.batch., got the shape .1."),
        ((image[:0], label[:0]), "'image' is empty: a training step needs at least one example"),
    ):
        with pytest.raises(torch.jit.Error, match=message):
            module.train_step(*batch)
    assert all(torch.equal(x, before[name]) for name, x in module.get_state().items())
