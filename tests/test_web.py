"""`--to web`: what is in the directory, and that browsers and Node train as Python does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import dsl
from dsl import Dense, adam, f32, model, training
from nncompile import Trainer, export
from nncompile.compiler.web import MANIFEST
from nncompile.diagnostics.errors import BackendError, FeedError, FileError
from nncompile.program.composition import compose
from nncompile.program.model_file import load
from nncompile.runtime import load_state
from nncompile.train.sources.declared import SAMPLE, sample_of
from tests import web
from tests.command_line import succeeds
from tests.pages import run_page
from tests.web import BATCH, Site, recipe, same_bits, sample


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("web") / "site"
    export(recipe(), directory, to="web", sample=sample())
    return directory


def test_the_directory_says_what_is_in_it(site: Path) -> None:
    manifest = json.loads((site / MANIFEST).read_text())
    held = {file.name for file in site.iterdir() if not file.is_symlink()}
    program = {"nncompile.mjs", "index.html", "package.json"}
    assert held == {MANIFEST, *program, *manifest["files"].values()}
    assert manifest["model"] == "net" and manifest["batch_size"] == BATCH
    assert manifest["inputs"]["x"] == {"type": "float32", "shape": ["batch", 64]}
    assert manifest["predict"] == ["x"] and manifest["minimize"] == ["loss"]
    state, about = load_state(site / "state.safetensors")
    assert {*manifest["state"]} == {*state} - {"seed"}
    assert about["nncompile.recipe"] == compose(recipe()).digest


def test_the_module_is_short() -> None:
    text = (web.ROOT / "nncompile/templates/web/nncompile.mjs").read_text("utf-8")
    assert len(text.splitlines()) < 150


def test_several_steps_in_one_run_are_the_steps(site: Path) -> None:
    """The same bits, with masks of dropout that differ from step to step. onnxruntime joins some
    operators outside of loops only, which may change a last bit: not here."""
    trained = Site(site, optimized=False)
    state, _ = load_state(site / "state.safetensors")
    *_, (_, single) = steps = list(trained.trained(5))
    batches = [trained.batch(i) for i in range(5)]
    stacked = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    results = trained.run("steps", {**state, **stacked})
    np.testing.assert_array_equal(results["loss"], [metrics["loss"] for metrics, _ in steps])
    for path, name in trained.manifest["state"].items():
        np.testing.assert_array_equal(results[name], single[path], path)
    none = {name: x[:0] for name, x in stacked.items()}
    results = trained.run("steps", {**state, **none})
    assert results["loss"].shape == (0,) and results["step.next"] == 0


def test_the_model_predicts_by_the_state_that_it_is_given(site: Path) -> None:
    trained, trainer = Site(site), Trainer(recipe())
    x = trained.batch(0)["x"]
    *_, (_, state) = trained.trained(3)
    trainer.load(site / "state.safetensors")
    before, after = (trained.run("model", {**s, "x": x})["logits"] for s in (trainer.state, state))
    np.testing.assert_allclose(before, trainer.predict(x)["logits"], 1e-5, 1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_a_directory_of_another_is_left_alone(site: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"holds files already, .* no export wrote it"):
        export(recipe(), tmp_path, to="web")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    again = tmp_path / "site"
    export(recipe(), again, to="web", sample=sample())
    (again / "mine.html").write_text("mine")
    export(recipe(drop=0.0), again, to="web", sample=sample())
    assert (again / "mine.html").read_text() == "mine"
    assert (again / "step.onnx").read_bytes() != (site / "step.onnx").read_bytes()
    export(recipe(), again, to="web")
    assert "data" not in json.loads((again / MANIFEST).read_text())["files"]


def test_mistakes_of_an_export_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"web is written to a directory, but .*net\.onnx"
    ) as raised:
        export(recipe(), tmp_path / "net.onnx", to="web")
    assert raised.value.hint == f"name it {tmp_path / 'net'}"
    with pytest.raises(FeedError, match="'y' has the wrong element type"):
        export(recipe(), tmp_path / "a", to="web", sample={**sample(), "y": np.zeros(100)})

    @model
    def half(x=dsl.bf16["batch", 4]):
        return {"loss": (x >> Dense(2)).mean()}

    @model
    def said(x=dsl.f32["batch", 4]):
        y = x >> Dense(2)
        return {"loss": y.mean(), "y": y.astype(dsl.bf16)}

    for of_bfloat16, name in ((half, "weight"), (said, "y")):
        with pytest.raises(BackendError, match=f"{name} is .*JavaScript has no arrays of bfloat16"):
            export(training(of_bfloat16, optimizer=adam()), tmp_path / "b", to="web")
    assert not list(tmp_path.iterdir())


def test_a_sample_is_of_all_examples_or_of_some() -> None:
    net = recipe().model
    assert len(sample_of(net, sample(50))["y"]) == 50
    x = np.arange(64 * 40_000, dtype="f8").reshape(-1, 64)
    some = sample_of(net, {"x": x, "y": np.arange(40_000) % 10})
    assert 0.9 * SAMPLE < sum(a.nbytes for a in some.values()) <= SAMPLE
    assert some["x"].dtype == np.float32
    np.testing.assert_array_equal(some["x"][:, 0] // 64 % 10, some["y"])
    with pytest.raises(FeedError, match="no data for input 'y'"):
        sample_of(net, {"x": x})


def test_a_sample_is_of_what_training_takes() -> None:
    @model
    def scaled(x=f32["batch"], scale=f32[()]):
        return {"loss": (scale * x).mean()}

    some = sample_of(scaled, {"x": np.ones((3, 1), "f4"), "scale": np.float32(2)})
    assert {name: array.shape for name, array in some.items()} == {"x": (3,), "scale": ()}


def test_the_command_writes_the_data_of_the_file(tmp_path: Path) -> None:
    file = web.ROOT / "examples" / "xor.py"
    printed = succeeds("compile", file, "--to", "web", "-o", tmp_path / "site")
    assert "python -m http.server -d" in printed
    data, _ = load_state(tmp_path / "site" / "data.safetensors")
    assert {*data} == {*load(file).model.inputs}


needs_node = pytest.mark.skipif(
    web.missing("onnxruntime-node", "node") is not None,
    reason=str(web.missing("onnxruntime-node", "node")),
)


@needs_node
def test_node_trains_as_python_does(site: Path) -> None:
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 30):
        pytest.skip(f"kernels of onnxruntime {onnxruntime.__version__} have other last bits")
    steps = 12
    trained = Site(site)
    ours = list(trained.trained(steps + 1))
    metrics = [m for m, _ in ours]
    theirs = trained.in_node(steps)
    assert same_bits(metrics[:steps], theirs["metrics"])
    assert same_bits(trained.together(8), theirs["together"])
    assert same_bits(metrics[steps:], [theirs["next"]])  # after saving and loading
    saved, about = load_state(site / "saved.safetensors")
    for path, x in ours[steps - 1][1].items():
        np.testing.assert_array_equal(saved[path], x, path)
    assert about == load_state(site / "state.safetensors")[1]
    predicted = trained.run("model", {**saved, **trained.batch(0)})
    np.testing.assert_array_equal(theirs["outputs"]["logits"], predicted["logits"].ravel())
    trainer = Trainer(recipe())
    trainer.load(site / "saved.safetensors")
    assert trainer.state["step"] == steps


@needs_node
def test_node_says_in_one_message_what_is_wrong(site: Path, tmp_path: Path) -> None:
    web.link_modules(site)
    shutil.copytree(site, tmp_path / "other", symlinks=True)
    (tmp_path / "other" / "state.safetensors").unlink()
    export(recipe(9), tmp_path / "wide", to="web")
    (tmp_path / "wide" / "state.safetensors").rename(tmp_path / "other" / "other.safetensors")
    script = web.SCRIPT.with_name("mistakes.mjs")
    with web.served(site) as server:
        result = web.printed("node", script, site, tmp_path / "other", server)
    expected = {
        "a wrong size": "input x must be float32[batch = 4, 64], got Float32Array[4, 63]",
        "a wrong rank": "input x must be float32[batch, 64], got Float32Array[4, 8, 8]",
        "rows that differ": "input y must be int64[batch = 4], got BigInt64Array[3]",
        "another element type": "input y must be int64[batch = 4], got Int32Array[4]",
        "plain numbers": "input y must be int64[batch = 4], got no { data, dims }",
        "nothing": "input y must be int64[batch = 4], got no { data, dims }",
        "an unknown input": "there is no input z, only x, y",
        "batches of two sizes": "the batches differ: x is float32[2, 64] after float32[4, 64]",
        "no examples": "input x must be float32[batch, 64], of one example or more, "
        "got Float32Array[0, 64]",
        "too few numbers": "Tensor's size(256) does not match data length(5).",
        "no directory": f"cannot read file://{site}/nowhere/manifest.json: ENOENT",
        "no state": f"cannot read file://{tmp_path}/other/state.safetensors: ENOENT",
        "a page": f"cannot read {server}/index.html: the server answers with a page",
        "nothing there": f"cannot read {server}/nowhere/manifest.json: HTTP 404",
        "another state": "the state is of another network: batch_norm.bias is float32[9], "
        "not float32[8]",
        "half a state": "the .safetensors file ends before dense_1.weight.v does",
        "no file of several steps": "this network has no file of steps",
        "no state at all": "this is not a complete .safetensors file",
    }
    assert result["said"] == expected
    assert np.isfinite(result["loss"]) and result["steps"] == 1


@pytest.mark.skipif(
    web.missing("onnxruntime-web", *web.CHROMIUM) is not None,
    reason=str(web.missing("onnxruntime-web", *web.CHROMIUM)),
)
def test_a_browser_trains_and_says_what_is_wrong(site: Path, tmp_path: Path) -> None:
    root = tmp_path / "site"
    shutil.copytree(site, root, symlinks=True)
    web.link_modules(root)
    page = (root / "index.html").read_text("utf-8")
    for name in ("losses.html", "batches.mjs"):
        shutil.copy(web.SCRIPT.with_name(name), root)
    off = "<script>delete globalThis.WebAssembly</script>"
    (root / "without.html").write_text(page.replace("<script>", f"{off}<script>", 1), "utf-8")
    shutil.copytree(root, root / "incomplete", symlinks=True)
    (root / "incomplete" / "data.safetensors").unlink()
    pages = "index.html?steps=8", "without.html", "incomplete/index.html"
    shown = web.in_browser(root, "&".join(("losses.html?8", *pages)), str(web.chromium()))
    ours = [metrics for metrics, _ in Site(site).trained(8)]
    for theirs in (shown["metrics"], shown["together"]):
        assert abs(theirs[0]["loss"] - ours[0]["loss"]) < 1e-6
        np.testing.assert_allclose(
            [m["loss"] for m in theirs], [m["loss"] for m in ours], rtol=1e-4
        )
    assert shown["pages"]["index.html?steps=8"] == {"title": "net", "steps": "8", "message": ""}
    assert "no WebAssembly" in shown["pages"]["without.html"]["message"]
    assert "data.safetensors: HTTP 404" in shown["pages"]["incomplete/index.html"]["message"]


@needs_node
def test_the_script_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = web.ROOT / "docs" / "runtimes.md"
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)
    (script,) = re.findall(r"^```javascript\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    (tmp_path / "train.mjs").write_text(script, "utf-8")
    web.link_modules(tmp_path / "site")
    shown = web.output("node", "train.mjs")
    assert shown.endswith("2 [ 32, 10 ] BigInt64Array(1) [ 3n ]\n")
    state, _ = load_state(tmp_path / "trained.safetensors")
    assert state["step"] == 3
