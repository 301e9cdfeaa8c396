"""What tells other services of a training: the real packages where they are installed, and a
service that fails."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, accuracy, adam, cosine, cross_entropy, f32, i64, model, training
from nncompile import Trainer
from nncompile.diagnostics.errors import ModelError
from nncompile.runtime.session import Session
from nncompile.train import Event, MLflowLog, OptunaPruning, TrainingWarning, WandbLog
from nncompile.train.events import EventTrainer
from nncompile.train.hooks.tracking import Tracking, parameters_of

RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.standard_normal((24, 4)).astype("f4"),
    "label": RNG.integers(0, 3, 24),
}


def trainer(seed: int = 0) -> Trainer:
    @model
    def net(x=f32["batch", 4], label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = x >> Dense(3, name="out")
        return {
            "logits": logits,
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    rate = cosine(1e-2, steps=100)
    return Trainer(training(net, optimizer=adam(rate, weight_decay=0.1), batch_size=8, seed=seed))


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = importlib.import_module

    def missing(name: str, *args: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *args)

    monkeypatch.setattr("importlib.import_module", missing)


class Service(Tracking):
    """A service that notes what it gets, and is away while `away` is true."""

    service = "the service"

    def __init__(self, every: int | None = None, model: bool = False) -> None:
        super().__init__(every, model)
        self.got: list[Any] = []
        self.away = False

    def _note(self, *what: Any) -> None:
        if self.away:
            raise ConnectionError("no route to host")
        self.got.append(what)

    def _begin(self, trainer: EventTrainer) -> None:
        self._note("begin", self.run_id)
        self.run_id = "r1"

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        self._note("log", step, sorted(numbers))

    def _keep(self, file: Path) -> None:
        self._note("keep", file.name, file.stat().st_size > 0)

    def _end(self, status: str) -> None:
        self._note("end", status)


def test_what_is_logged_and_when() -> None:
    log = Service(every=2, model=True)
    trainer().fit(DATA, epochs=2, callbacks=log, verbose=0)
    steps = [x[1] for x in log.got if x[0] == "log"]
    assert steps == [2, 3, 4, 6, 6]
    assert log.got[0] == ("begin", None)
    assert log.got[1][2] == ["step/accuracy", "step/loss"]
    assert log.got[2][2] == ["accuracy", "epoch", "loss"]
    assert log.got[-2:] == [("keep", "model.onnx", True), ("end", "finished")]


def test_a_service_that_is_away_does_not_end_the_training() -> None:
    """It is told once; what it missed it gets when it is back, in order."""
    log = Service()

    def outage(event: Event) -> None:
        log.away = event.epoch < 3

    t = trainer()
    with pytest.warns(TrainingWarning, match=r"the service failed.*no route to host") as told:
        t.fit(DATA, epochs=4, callbacks=[outage, log], verbose=0)
    assert len(told) == 1
    assert t.epoch == 4
    assert [x[1] for x in log.got if x[0] == "log"] == [3, 6, 9, 12]
    assert log.got[-1] == ("end", "finished")


def test_a_service_that_stays_away_is_told_at_the_end() -> None:
    log = Service()
    log.away = True
    with pytest.warns(TrainingWarning) as told:
        trainer().fit(DATA, epochs=2, callbacks=log, verbose=0)
    assert [str(x.message).partition(",")[0] for x in told] == [
        "the service failed",
        "the service has not got the end of the run ",
    ]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_how_it_ends(error: type[BaseException], status: str) -> None:
    def fails(event: Event) -> None:
        raise error("stop")

    log = Service(model=True)
    with pytest.raises(error):
        trainer().fit(DATA, epochs=2, callbacks=[log, fails], verbose=0)
    assert log.got[0][0] == "begin"
    assert log.got[-1] == ("end", status)
    assert not any(x[0] == "keep" for x in log.got)


def test_a_training_that_is_gone_on_with_goes_on_with_its_run() -> None:
    first, second = Service(), Service()
    trainer().fit(DATA, epochs=1, callbacks=first, verbose=0)
    second.load_state_dict(first.state_dict())
    trainer().fit(DATA, epochs=1, callbacks=second, verbose=0)
    assert second.got[0] == ("begin", "r1")


def test_the_parameters_of_a_recipe() -> None:
    table = parameters_of(trainer(seed=5))
    assert table == {
        "model": "net",
        "parameters": 15,
        "batch_size": 8,
        "seed": 5,
        "accumulate": 1,
        "providers": "cpu",
        "minimize": "loss",
        "optimizer": "adam",
        "optimizer.lr": "<schedule cosine>",
        "optimizer.betas": "(0.9, 0.999)",
        "optimizer.eps": 1e-8,
        "optimizer.weight_decay": 0.1,
        "optimizer.amsgrad": False,
        "optimizer.decoupled_weight_decay": False,
    }


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("sqlalchemy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("mlflow")
        monkeypatch.chdir(tmp_path)  # where it puts artifacts
        package.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
        yield package
        package.set_tracking_uri(None)


def test_mlflow(mlflow: Any, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("kept")
    log = MLflowLog("digits", "first", params={"idea": "none"}, artifacts=[note])
    t = trainer()
    history = t.fit(DATA, epochs=2, callbacks=log, verbose=0)
    client = mlflow.MlflowClient()
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params["optimizer"] == "adam" and run.data.params["idea"] == "none"
    losses = client.get_metric_history(log.run_id, "loss")
    assert [(m.step, m.value) for m in losses] == list(zip((3, 6), history["loss"], strict=True))
    folder = Path(client.download_artifacts(log.run_id, "", str(tmp_path)))
    assert (folder / "note.txt").read_text() == "kept"
    (logits,) = Session(folder / "model.onnx").run({"x": DATA["x"]}).values()
    np.testing.assert_allclose(logits, t.predict(DATA["x"])["logits"], rtol=1e-5, atol=1e-6)

    resumed = MLflowLog("digits")
    resumed.load_state_dict(log.state_dict())
    t.fit(DATA, epochs=1, callbacks=resumed, verbose=0)
    assert [m.step for m in client.get_metric_history(log.run_id, "loss")] == [3, 6, 9]

    with mlflow.start_run() as active:  # that of the user, who ends it
        t.fit(DATA, epochs=1, callbacks=(log := MLflowLog(model=False)), verbose=0)
        assert log.run_id == active.info.run_id
        assert client.get_run(log.run_id).info.status == "RUNNING"


def test_mlflow_without_its_server(mlflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = MLflowLog(tracking_uri="http://127.0.0.1:9")
    t = trainer()
    with pytest.warns(TrainingWarning, match="MLflow failed, and the training goes on"):
        t.fit(DATA, epochs=2, callbacks=log, verbose=0)
    assert t.epoch == 2


@pytest.mark.filterwarnings("ignore", "error::nncompile.train.TrainingWarning")
def test_wandb_offline(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    log = WandbLog("digits", "first", directory=tmp_path, config={"idea": "none"})
    trainer().fit(DATA, epochs=2, callbacks=log, verbose=0)
    wandb.teardown()  # or its service may still be writing
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for text in (b"accuracy", b"optimizer.weight_decay", b"idea", b"model"):
        assert text in content
    assert log.run_id is not None and log.run_id in file.name
    with pytest.raises(ModelError, match=r"mode must be .* got 'of'"):
        WandbLog(mode="of")  # type: ignore[arg-type]  # the mistake


def test_optuna_prunes() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    epochs = []

    def objective(trial: Any) -> float:
        t = trainer()
        t.fit(DATA, epochs=3, callbacks=OptunaPruning(trial, "loss"), verbose=0)
        epochs.append(t.epoch)
        return t.evaluate(DATA)["loss"]  # type: ignore[no-any-return]

    class Always(optuna.pruners.BasePruner):  # type: ignore[misc, name-defined]
        def prune(self, study: Any, trial: Any) -> bool:
            return trial.number == 1 and trial.last_step == 2

    study = optuna.create_study(pruner=Always())
    study.optimize(objective, n_trials=2)
    assert [x.state.name for x in study.trials] == ["COMPLETE", "PRUNED"]
    assert [len(x.intermediate_values) for x in study.trials] == [3, 2]
    assert epochs == [3]


def test_mistakes_with_optuna() -> None:
    optuna = pytest.importorskip("optuna")
    with pytest.raises(ModelError, match="needs a trial of Optuna, got 3"):
        OptunaPruning(3)
    several = optuna.create_study(directions=["minimize", "maximize"])
    with pytest.raises(ModelError, match="several objectives"):
        OptunaPruning(several.ask())
    with pytest.warns(TrainingWarning, match=r'accuracy is better the larger.*"maximize"'):
        OptunaPruning(optuna.create_study().ask(), "val_accuracy")
    trial = optuna.create_study().ask()
    with pytest.raises(ModelError, match="no metric 'val_loss'"):
        trainer().fit(DATA, epochs=1, callbacks=OptunaPruning(trial), verbose=0)


@pytest.mark.parametrize(
    ("package", "name", "make"),
    [
        ("mlflow", "mlflow", MLflowLog),
        ("wandb", "wandb", WandbLog),
        ("optuna", "optuna", lambda: OptunaPruning(None)),
    ],
)
def test_a_package_that_is_missing(
    package: str, name: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, package)
    with pytest.raises(ModelError, match=rf"needs {package}(.|\n)*'nncompile\[{name}\]'"):
        make()
