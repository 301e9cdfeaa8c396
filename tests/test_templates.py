"""`nncompile init`: every template trains at once, and nothing is replaced."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nncompile.cli.app import app
from nncompile.cli.init import NEXT
from nncompile.compiler.compile import compile_model
from nncompile.program.model_file import load
from nncompile.runtime import Session
from nncompile.train import Trainer
from tests.command_line import fails, run, succeeds
from tests.test_docs import ROOT

MODELS = {"gan": "gan", "finetune": "pretraining"}  # of those with several


@pytest.mark.parametrize("template", NEXT)
def test_a_template_trains(tmp_path: Path, template: str) -> None:
    printed = succeeds("init", template, tmp_path / "project")
    assert all(command in printed for command in NEXT[template])
    declared = load(tmp_path / "project" / f"{template}.py", MODELS.get(template))
    assert declared.data is not None and declared.data.validation is not None
    trainer = Trainer(declared.recipe, threads=1)
    loss = "discriminator_loss" if template == "gan" else "loss"
    losses = []
    few = {name: x[:768] for name, x in declared.data.train.items()}
    trainer.fit(few, epochs=1, batch_size=32, callbacks=lambda e: losses.append(e.metrics[loss]))
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    few = {name: x[:64] for name, x in declared.data.validation.items()}
    assert np.isfinite(trainer.evaluate(few)[loss])


@pytest.mark.parametrize("template", NEXT)
def test_the_commands_of_a_readme_exist(tmp_path: Path, template: str) -> None:
    """They are commands, their options are those of the commands and of the file."""
    succeeds("init", template, tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^(?:nncompile|python) ", readme, re.M)) == 3
    commands = {
        (c.callback.__name__ if c.callback else "").replace("_", "-")
        for c in app.registered_commands
    }
    options = load(tmp_path / f"{template}.py").options
    assert options
    for line in NEXT[template]:
        program, command, *rest = line.split()
        assert program == "python" or command in commands, line
        if program != "python":
            shown = run(command, "--help").stdout
            assert all(x in shown for x in rest if x.startswith("--")), line
        assert all(x.partition("=")[0] in options for x in rest if "=" in x), line


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert "has README.md already" in fails("init", "tabular", tmp_path)
    assert [x.name for x in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
    assert "not one of 'tabular', 'image'" in run("init", "tablar", tmp_path).output


def test_the_generator_is_exported_with_its_weights(tmp_path: Path) -> None:
    """The second command of the README, of a model that no recipe trains by itself."""
    succeeds("init", "gan", tmp_path)
    file, model = tmp_path / "gan.py", tmp_path / "generator.onnx"
    trainer = Trainer(load(file, "gan").recipe, seed=5, threads=1)
    checkpoint = trainer.save(tmp_path / "checkpoint.safetensors")
    succeeds("compile", file, "--model", "generator", "-o", model, "--params", checkpoint)
    code = np.ones((3, 8), np.float32)
    weights = {n: x for n, x in trainer.params.items() if n.startswith("generator.")}
    bare = compile_model(load(file, "generator").model).model
    known = Session(bare, threads=1).run({"code": code, **weights})["point"]
    np.testing.assert_allclose(Session(model, threads=1).run({"code": code})["point"], known, 1e-5)


def test_the_fine_tuning_is_a_program(tmp_path: Path) -> None:
    succeeds("init", "finetune", tmp_path)
    file = tmp_path / "finetune.py"
    trainer = Trainer(load(file, "pretraining").recipe, threads=1)
    checkpoint = trainer.save(tmp_path / "checkpoint.safetensors")
    done = subprocess.run(
        [sys.executable, file.name, checkpoint.name],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "% right" in done.stdout
    assert (tmp_path / "periodic.onnx").is_file()


@pytest.mark.skipif(not find_spec("hatchling"), reason="needs hatchling")
def test_a_wheel_holds_the_templates(tmp_path: Path) -> None:
    for name in ("nncompile", "dsl"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert {f"nncompile/templates/{name}.py" for name in NEXT} <= {*held}
    pages = ("nncompile.mjs", "index.html", "package.json")
    assert {f"nncompile/templates/web/{name}" for name in pages} <= {*held}
