"""The examples that go on with files of other frameworks: each reaches its figure, and what it
writes runs in plain onnxruntime. The files in `examples/models` are those of their makers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from nncompile.compiler.adapters import load_lora, merge
from nncompile.compiler.export import export
from nncompile.frontends.onnx.differences import differences
from nncompile.frontends.onnx.loading import load_onnx
from nncompile.program.model_file import load
from nncompile.train import Trainer
from tests.trained_examples import EXAMPLES

MODELS = EXAMPLES / "models"
PRODUCERS = {
    "code_bert": "pytorch",
    "code_gpt": "pytorch",
    "digits_cnn": "pytorch",
    "digits_keras": "tf2onnx",
    "digits_qdq": "onnx.quantize",
    "tumors_sklearn": "skl2onnx",
}


def module_of(name: str) -> ModuleType:
    return load(EXAMPLES / f"{name}.py").module


def outputs_of(path: Path, **feeds: Any) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def is_drop_in(path: Path, original: Path) -> bool:
    """Whether a file is another one with other weights."""
    found = differences(original, path)
    return found.is_same_graph and bool(found.changed)


def test_a_file_that_knows_other_classes_is_better_than_none() -> None:
    found = module_of("finetune_cnn").compared(choices=3)
    layer, whole, scratch = (
        found[k].mean() for k in ("new layer", "whole network", "from scratch")
    )
    assert 0.7 < layer < whole
    assert whole > scratch
    assert whole > 0.84


def test_what_is_frozen_of_a_file_stays() -> None:
    module = module_of("finetune_cnn")
    trainer = Trainer(module.recipe(rate=1e-2, freeze=module.backbone))
    before = trainer.params
    trainer.fit(module.data()[0], steps=2)
    moved = {path for path, x in trainer.params.items() if not np.array_equal(x, before[path])}
    assert moved == {"head.weight", "head.bias"}


def test_a_language_model_of_a_file_learns_by_factors(tmp_path: Path) -> None:
    module = module_of("lora_gpt")
    (reference, held_out), (_, code) = module.data(), module.source_text.data()
    assert not {row.tobytes() for row in reference["text"]} >= {*map(bytes, held_out["text"])}
    trainer = Trainer(module.recipe)
    before = module.bits(trainer, held_out)
    assert before < 2.7 and module.bits(trainer, code) < 2.9, "the file knows both a little"
    trainer.fit(reference)
    after = module.bits(trainer, held_out)
    assert after < before - 0.2
    # What was learned is a small file, and with it the file of the network is what was trained.
    export(trainer, tmp_path / "english.safetensors")
    assert (tmp_path / "english.safetensors").stat().st_size < 30_000
    again = load_lora(module.gpt, tmp_path / "english.safetensors")
    export(merge(again), tmp_path / "english.onnx", "original")
    assert is_drop_in(tmp_path / "english.onnx", module.FILE)
    text = held_out["text"][:5]
    (logits,) = outputs_of(tmp_path / "english.onnx", text=text)
    ours = trainer.predict(text)["logits"]
    np.testing.assert_allclose(logits, ours, rtol=1e-3, atol=1e-3)
    # The matrix that embeds the characters is that of the last layer, in both places.
    assert list(module.gpt.report.ties) == ["characters.weight"]


def test_an_encoder_of_a_file_learns_to_color_python() -> None:
    module = module_of("lora_bert")
    train, held_out = module.data()
    code = (held_out["kind"] == 0).mean()
    _, layer = module.measured("a layer on the features", train, held_out)
    trainer, factors = module.measured("factors in the attention", train, held_out)
    assert code < layer < 0.68
    assert factors > layer + 0.08
    assert factors > 0.74
    sizes = {path: x.size for path, x in trainer.params.items()}
    few = {path for path in sizes if ".lora_" in path}
    assert all(".attention." in path for path in few)
    assert sum(sizes[path] for path in few) < 0.08 * sum(sizes.values())
    stored = Trainer(trainer.recipe).params
    for path in {path for path in sizes if path.startswith("bert.")} - few:
        np.testing.assert_array_equal(trainer.params[path], stored[path], err_msg=path)


def test_the_kinds_of_characters_are_those_of_the_tokenizer() -> None:
    module = module_of("lora_bert")
    text = "x = 'a' + b # c\ndef f(): '''d\ne'''\n"
    kinds = module.kinds_of(np.frombuffer(text.encode(), np.uint8).astype(np.int64))
    first, second = "xxxx" + "s" * 3 + "xxxxx" + "c" * 3 + "x", "x" * 9 + "s" * 9 + "x"
    assert "".join("xsc"[kind] for kind in kinds) == first + second


def test_salient_pixels_decide(tmp_path: Path) -> None:
    module = module_of("saliency")
    session = module.exported(tmp_path / "saliency.onnx")
    pixels, labels = module.images()
    logits, saliency = session.run(["logits", "saliency"], {"image": pixels})
    assert (logits.argmax(-1) == labels).mean() > 0.98
    chance = np.random.default_rng(0).uniform(size=saliency.shape)
    salient, other = (module.changed(session, pixels, x, 3) for x in (saliency, chance))
    assert salient > 0.35
    assert other < 0.15
    # All of a map is how fast the logit changes with the contrast of the image; here and there a
    # unit switches on the way.
    less, more = (
        session.run(["logits"], {"image": pixels * np.float32(c)})[0] for c in (1 - 5e-4, 1 + 5e-4)
    )
    rows, answers = np.arange(len(pixels)), logits.argmax(-1)
    slopes = (more[rows, answers] - less[rows, answers]) / 1e-3
    wrong = abs(saliency.sum((1, 2, 3)) - slopes) / abs(slopes)
    assert np.median(wrong) < 0.01


def test_the_map_of_salient_pixels_is_drawn(tmp_path: Path) -> None:
    pictures = pytest.importorskip("matplotlib.image")
    module = module_of("saliency")
    random = np.random.default_rng(0)
    pixels, saliency = random.uniform(size=(2, 3, 1, 8, 8))
    module.draw(pixels, saliency, random.uniform(size=(3, 5)), tmp_path / "map.png")
    assert pictures.imread(tmp_path / "map.png").shape[:2] == (240, 300)
    file = EXAMPLES.parent / "docs" / "images" / "saliency.png"
    assert file.stat().st_size < 60_000
    assert "images/saliency.png" in (file.parent.parent / "onnx.md").read_text("utf-8")


def test_a_network_of_keras_learns_negatives_and_stays_in_its_place(tmp_path: Path) -> None:
    module = module_of("keras_continued")
    train, plain, negative = module.data()
    assert module.right(module.FILE, plain) > 0.95
    assert module.right(module.FILE, negative) < 0.05
    trainer = Trainer(module.recipe)
    trainer.fit(train)
    path = tmp_path / "digits.onnx"
    export(module.keras, path, "original", params=trainer.params)
    assert module.right(path, plain) > 0.93
    assert module.right(path, negative) > 0.89
    assert is_drop_in(path, module.FILE)


def test_a_pipeline_of_scikit_learn_learns_from_new_rows(tmp_path: Path) -> None:
    module = module_of("sklearn_continued")
    new, held_out = module.data()
    assert module.right(module.FILE, held_out) < 0.94
    trainer = Trainer(module.recipe)
    trainer.fit(new)
    path = tmp_path / "tumors.onnx"
    export(load_onnx(module.FILE), path, "original", params=trainer.params)
    assert module.right(path, held_out) >= 0.96
    assert trainer.evaluate(held_out)["accuracy"] == pytest.approx(module.right(path, held_out))
    assert is_drop_in(path, module.FILE)
    # All four arrays of the network moved, the bias of its only result among them.
    assert {change.name for change in differences(module.FILE, path).changed} == {
        "coefficient", "intercepts", "coefficient1", "intercepts1",
    }  # fmt: skip


def test_integers_learn_to_do_within_their_ranges(tmp_path: Path) -> None:
    module = module_of("qat")
    train, held_out = module.data()
    assert module.right(module.FLOATS, held_out) > 0.95
    assert module.right(module.QUANTIZED, held_out) < 0.84
    found = []
    path = tmp_path / "digits.onnx"
    for recipe in (module.aware, module.unaware):
        trainer = Trainer(recipe)
        trainer.fit(train)
        module.write_quantized(trainer, path)
        found.append(module.right(path, held_out))
        assert is_drop_in(path, module.QUANTIZED)
    aware, unaware = found
    assert aware > 0.89
    assert aware > unaware + 0.04
    kinds = {x.data_type for x in onnx.load(path).graph.initializer if len(x.dims) > 1}
    assert onnx.TensorProto.INT8 in kinds


def test_the_files_come_from_elsewhere_and_are_small() -> None:
    files = {path.stem: path for path in MODELS.glob("*.onnx")}
    producers = {name: onnx.load(path).producer_name for name, path in files.items()}
    assert producers == PRODUCERS
    sizes = [path.stat().st_size for path in files.values()]
    assert max(sizes) < 200_000 and sum(sizes) < 500_000
    makers = "".join(path.read_text("utf-8") for path in MODELS.glob("*.py"))
    for path in files.values():
        assert path.name in makers


def maker(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program in `examples/models` that makes files, as a module."""
    spec = importlib.util.spec_from_file_location(name, MODELS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])  # it adds the directory of the examples
    spec.loader.exec_module(module)
    return module


def test_the_files_of_torch_are_what_their_maker_writes(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three steps of the training, which takes minutes: weights that are still equal are
    one in a file of torch."""
    maker("with_torch", monkeypatch).export_all(tmp_path, steps=3)
    for name in ("digits_cnn", "code_gpt", "code_bert"):
        assert differences(tmp_path / f"{name}.onnx", MODELS / f"{name}.onnx").is_same_graph


def test_the_quantized_file_is_what_its_maker_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker("with_quantization", monkeypatch).export(tmp_path / "digits_qdq.onnx")
    found = differences(tmp_path / "digits_qdq.onnx", MODELS / "digits_qdq.onnx")
    assert found.is_same_graph
    # The numbers too, but for one of 256 where a range is half way between two.
    assert all(change.relative < 0.01 for change in found.changed)


def test_the_file_of_scikit_learn_is_what_its_maker_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skl2onnx")
    maker("with_sklearn", monkeypatch).export(tmp_path / "tumors_sklearn.onnx")
    found = differences(tmp_path / "tumors_sklearn.onnx", MODELS / "tumors_sklearn.onnx")
    assert found.is_same_graph
    assert all(change.relative < 0.01 for change in found.changed)
