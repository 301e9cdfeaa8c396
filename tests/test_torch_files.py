"""The command line on files of torch: written by `compile`, read by `run`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsl import Dense, f32, model, mse, sgd, training
from nncompile import export
from nncompile.diagnostics.errors import BackendError, FeedError, FileError, ProviderError
from nncompile.runtime import Session, TorchSession
from tests.command_line import fails, succeeds

TARGETS = {"torchscript": "net.pt", "torchscript-step": "net.step.pt", "pt2": "net.pt2"}


@pytest.fixture(scope="module")
def files(
    torchscript: SimpleNamespace, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A directory with a file for each target, and data."""
    directory = tmp_path_factory.mktemp("files")
    source = trained.parent / "net.py"
    checkpoint = trained / "checkpoint.safetensors"
    for target, name in TARGETS.items():
        shown = succeeds(
            "compile", source, "--to", target, "-o", directory / name, "--params", checkpoint
        )
        assert f"wrote {directory / name}" in shown
    np.save(directory / "x.npy", np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    return directory


@pytest.mark.parametrize("target", TARGETS)
def test_run_prints_what_it_prints_for_onnx(target: str, files: Path, trained: Path) -> None:
    given = ("--input", f"x={files / 'x.npy'}")
    shown = succeeds("run", "--trust", files / TARGETS[target], *given).splitlines()
    if target == "torchscript-step":
        note = shown.pop(0)
        assert note.startswith("a training step, after 32 steps")
        assert note.endswith("train_step(x, label) trains it")
    expected = succeeds("run", trained / "model.onnx", *given).splitlines()
    assert shown[:2] == expected[:2]
    assert shown[2].endswith("ms on cpu")


@pytest.mark.slow  # what it shares takes long
@pytest.mark.parametrize("target", TARGETS)
def test_outputs_are_those_of_onnx(
    target: str, files: Path, trained: Path, torchscript: SimpleNamespace
) -> None:
    x = np.load(files / "x.npy")
    threads = torchscript.torch.get_num_threads()
    ours = TorchSession(files / TARGETS[target], threads=threads, trust=True)
    theirs = Session(trained / "model.onnx")
    for size in (1, 5):
        found, expected = ours.run({"x": x[:size]}), theirs.run({"x": x[:size]})
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], 2e-5, 2e-6)
        np.testing.assert_array_equal(found["best"], expected["best"])


@pytest.mark.parametrize("target", TARGETS)
def test_feeds_that_do_not_fit(target: str, files: Path) -> None:
    session = TorchSession(files / TARGETS[target], trust=True)
    x = np.load(files / "x.npy")
    for feeds, message in (
        ({}, "no data for input 'x'"),
        ({"z": x}, "no data for input 'x'"),
        ({"x": x, "z": x}, "no input 'z'"),
        ({"x": x.astype(np.float64)}, "the wrong element type"),
        ({"x": x[0]}, "rank 1, not 2"),
        ({"x": x[:, :3]}, "has size 3 on axis 1, not 4"),
    ):
        with pytest.raises(FeedError, match=message):
            session.run(feeds)
    assert "f32[batch, 4]" in fails("run", "--trust", files / TARGETS[target])


def test_files_of_other_programs(torchscript: SimpleNamespace, tmp_path: Path) -> None:
    torch = torchscript.torch

    class Sum(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, a: torch.Tensor, b: torch.Tensor):  # type: ignore[no-untyped-def, name-defined]
            return a + b, a - b

    pair = torch.ones(2), torch.zeros(2)
    torch.jit.trace(Sum(), pair).save(tmp_path / "sum.pt")
    torch.export.save(torch.export.export(Sum(), pair), tmp_path / "sum.pt2")
    for name in ("sum.pt", "sum.pt2"):
        session = TorchSession(tmp_path / name, trust=True)
        found = session.run({"a": np.array([1, 2], np.float32), "b": np.ones(2, np.float32)})
        assert {n: x.tolist() for n, x in found.items()} == {
            "output_0": [2, 3],
            "output_1": [0, 1],
        }
        assert session.note is None
        with pytest.raises(FeedError, match="no data for input 'b'"):
            session.run({"a": np.ones(2, np.float32)})
        with pytest.raises(BackendError, match="failed on these data"):
            session.run({"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32)})


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_files_that_are_none(name: str, files: Path, tmp_path: Path, torchscript: object) -> None:
    with pytest.raises(FileError, match="no such file"):
        TorchSession(tmp_path / name, trust=True)
    (tmp_path / name).write_bytes((files / name).read_bytes()[:2000])
    message = fails("run", "--trust", tmp_path / name, "-i", f"x={files / 'x.npy'}")
    assert f"{name} is not a " in message and message.startswith("BackendError")
    with pytest.raises(ProviderError, match="no device 'tpu'"):
        TorchSession(files / name, "tpu", trust=True)


@pytest.mark.parametrize(
    ("source", "other", "message"),
    [
        ("net.pt2", "other.pt", "is a .pt2 file"),
        ("net.pt", "other.pt2", "is a TorchScript file"),
    ],
)
def test_files_of_another_suffix(
    source: str, other: str, message: str, files: Path, tmp_path: Path
) -> None:
    (tmp_path / other).write_bytes((files / source).read_bytes())
    shown = fails("run", "--trust", tmp_path / other, "-i", f"x={files / 'x.npy'}")
    assert message in shown and "rename it" in shown


@pytest.mark.parametrize(
    ("target", "name"),
    [("torchscript", "z.onnx"), ("onnx", "z.pt"), ("pt2", "z.pt"), ("step", "z.pt2")],
)
def test_a_name_of_another_target(target: str, name: str, trained: Path, tmp_path: Path) -> None:
    shown = fails("compile", trained.parent / "net.py", "--to", target, "-o", tmp_path / name)
    assert f"{target} is written to a " in shown and not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["class", "größe", "torch", "_c"])
@pytest.mark.parametrize("to", ["torchscript", "torchscript-step"])
def test_names_that_files_cannot_have_get_another(
    name: str, to: str, tmp_path: Path, torchscript: SimpleNamespace
) -> None:
    @model
    def net(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        y = x >> Dense(2, name=name) >> Dense(4, name="fine")
        return {"y": y, "loss": mse(y, x)}

    (path,) = export(training(net, optimizer=sgd(0.1)), tmp_path / "net.pt", to=to, seed=0)
    held = {name for name, _ in torchscript.torch.jit.load(path).named_parameters()}
    other = f"{name.replace('ö', '_').replace('ß', '_')}_"
    assert held == {"fine.weight", "fine.bias", f"{other}.weight", f"{other}.bias"}


@pytest.mark.parametrize("to", ["torchscript", "torchscript-step"])
def test_inputs_that_do_not_fit(to: str, tmp_path: Path, torchscript: SimpleNamespace) -> None:
    """Nothing is spread silently; an empty batch has predictions of no rows; no graph of torch."""
    torch = torchscript.torch

    @model
    def net(x=f32["batch", 4], y=f32["batch", 1]):  # type: ignore[no-untyped-def]
        p = x >> Dense(1)
        return {"p": p, "loss": mse(p, y)}

    (path,) = export(training(net, optimizer=sgd(0.1)), tmp_path / "net.pt", to=to, seed=0)
    module = torch.jit.load(path)
    x, y = torch.ones(3, 4), torch.ones(3, 1)
    assert module(x)["p"].shape == (3, 1) and module(x[:0])["p"].shape == (0, 1)
    for wrong in (x[0], x[:, :1], x.double()):
        with pytest.raises(torch.jit.Error, match="input 'x' is f32"):
            module(wrong)
    if to == "torchscript-step":
        assert not module(x)["p"].requires_grad
        assert not module.evaluate(x, y)["loss"].requires_grad
        for bad in (y[:, 0], y[:1], y.expand(3, 4), y.double()):
            with pytest.raises(torch.jit.Error, match="input 'y' is f32"):
                module.evaluate(x, bad)


@pytest.mark.parametrize("target", TARGETS)
def test_a_program_is_not_run_without_trust(files: Path, target: str) -> None:
    shown = fails("run", files / TARGETS[target], "-i", f"x={files / 'x.npy'}")
    assert "is a program, not only data" in shown
    assert "--trust" in shown
    with pytest.raises(BackendError, match="may run any code when it is loaded"):
        TorchSession(files / TARGETS[target])


def test_a_state_dict_is_no_model(torchscript: SimpleNamespace, tmp_path: Path) -> None:
    torchscript.torch.save({"w": torchscript.torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(BackendError, match="not a TorchScript file") as caught:
        TorchSession(tmp_path / "weights.pt", trust=True)
    assert caught.value.hint is not None and "from_torch_state_dict" in caught.value.hint
