"""What connects processes does what its protocol says: here one process, or threads."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError, ProcessError
from nncompile.parallel.group import Group, gathered_texts
from nncompile.parallel.processes import Processes
from nncompile.parallel.ray_train import ray_train
from nncompile.parallel.torch_distributed import TorchGroup, torch_distributed
from nncompile.parallel.waiting import wait_until
from nncompile.train.interrupts import Interrupts
from tests.mpi_jobs import ROOT
from tests.thread_groups import in_threads


def check(group: Group) -> None:
    """Each call, with arrays that tell the processes apart."""
    rank, size = group.rank, group.size
    total = sum(range(size))
    short, long = np.array(float(rank)), np.full(200, rank, np.float32)
    group.allreduce(short, long)
    assert short == total
    np.testing.assert_array_equal(long, np.full(200, total, np.float32))
    greatest = np.array([rank, -rank])
    group.allreduce(greatest, operation="max")
    assert greatest.tolist() == [size - 1, 0]
    begun = np.full(100, rank, np.float32)
    wait = group.begin_sum(begun)
    wait()
    np.testing.assert_array_equal(begun, np.full(100, total, np.float32))
    bounds = [*[0, 0, *range(3, 3 * size, 2)][:size], 3 * size]  # the first has none
    first, last = bounds[rank : rank + 2]
    vector = np.arange(3.0 * size)
    group.reduce_scatter(vector, bounds)
    np.testing.assert_array_equal(vector[first:last], size * np.arange(first, last))
    parts = np.full(3 * size, -1.0)
    parts[first:last] = range(first, last)
    group.gather_parts(parts, bounds)
    np.testing.assert_array_equal(parts, np.arange(3.0 * size))
    every = group.allgather(np.full((2, 3), rank, np.int64))
    np.testing.assert_array_equal(every[:, 0], np.repeat(np.arange(size), 2))
    first = np.full(5, rank + 7, np.uint8)
    group.broadcast(first)
    assert first.tolist() == [7] * 5
    group.barrier()
    said = [f"{'é' * i} {i}" if i != 1 else "" for i in range(size)]
    assert list(group.agree(said[rank])) == said
    other = group.apart()
    assert (other.rank, other.size) == (rank, size)
    assert list(other.agree("")) == [""] * size


def test_threads_are_a_group() -> None:
    for error in in_threads(3, lambda processes: check(processes.group)):
        assert error is None, error


def test_texts_of_any_lengths_are_gathered() -> None:
    def work(processes: Processes) -> list[str]:
        return gathered_texts(processes.group.allgather, ["", "a", "bé"][processes.rank])

    assert in_threads(3, work) == [["", "a", "bé"]] * 3


def test_gloo_is_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed: Any = pytest.importorskip("torch.distributed")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ModelError, match="processes that torchrun started, this one was not"):
        torch_distributed()
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        check(TorchGroup(None, 20.0))
        assert torch_distributed().size == 1
        context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
        ray(monkeypatch, lambda: context)
        assert ray_train().size == 1
        context.get_world_size = lambda: 2
        with pytest.raises(ModelError, match="worker 0 of 2, and torch connects it as 0 of 1"):
            ray_train()
    finally:
        distributed.destroy_process_group()


def ray(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    """Makes a Ray Train that says where this process is."""
    train = SimpleNamespace(get_context=context)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(train=train))
    monkeypatch.setitem(sys.modules, "ray.train", train)


def test_ray_train_is_for_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside() -> Any:
        raise RuntimeError("get_context is for workers")

    nowhere = SimpleNamespace(get_world_rank=lambda: None, get_world_size=lambda: None)
    for context in (outside, lambda: nowhere):
        ray(monkeypatch, context)
        with pytest.raises(ModelError, match="for workers of Ray Train, and this is none"):
            ray_train()
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.train")
    with pytest.raises(ModelError, match="needs ray, which is not installed"):
        ray_train()


def test_waiting_ends() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 0, 5.0)
    with pytest.raises(ProcessError, match="has not answered process 3"):
        wait_until(lambda: False, 3, 0.01)
    with Interrupts() as interrupts:
        interrupts.received = 15
        with pytest.raises(SystemExit) as ended:
            wait_until(lambda: False, 0, 5.0)
        assert ended.value.code == 143
        interrupts.received = None


WORKERS = """
import sys
from pathlib import Path
import numpy as np
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

def work(config):
    from dsl import Dense, f32, model, mse, sgd, training
    from nncompile import Trainer
    from nncompile.parallel import ray_train

    @model
    def net(x=f32["batch", 3]):
        return {"loss": mse(x >> Dense(3, name="out"), x)}

    recipe = training(net, optimizer=sgd(0.1), batch_size=5)
    trainer = Trainer(recipe, parallel=config["parallel"] and ray_train())
    trainer.fit({"x": np.arange(36, dtype=np.float32).reshape(12, 3) / 36}, epochs=2, verbose=0)
    size = trainer.parallel.size if config["parallel"] else 1
    np.savez(config["file"], weight=trainer.params["out.weight"], size=size)

file = str(Path("found.npz").resolve())
about = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False}
ray.init(**about, runtime_env={"env_vars": {"PYTHONPATH": sys.argv[1]}})
TorchTrainer(
    work,
    train_loop_config={"parallel": True, "file": file},
    scaling_config=ScalingConfig(num_workers=2),
    torch_config=TorchConfig(backend="gloo"),
    run_config=RunConfig(storage_path=str(Path.cwd())),
).fit()
work({"parallel": None, "file": "one.npz"})
found, one = np.load(file), np.load("one.npz")
assert (found["size"], one["size"]) == (2, 1)
np.testing.assert_allclose(found["weight"], one["weight"], 1e-6, 1e-6)
"""


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ray", "torch"))), reason="ray or torch is not installed"
)
def test_workers_of_ray_train_as_one(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    command = [sys.executable, "workers.py", str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch.distributed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in {**about, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ModelError, match=f"port {port} of 127.0.0.1: it is in use") as error:
            torch_distributed(timeout=1.0)
        assert f"MASTER_PORT={port + 1} in all of them" in str(error.value)
        # What is there accepts the other one, and never says a word.
        monkeypatch.setenv("RANK", "1")
        module = sys.modules[torch_distributed.__module__]
        monkeypatch.setattr(module, "_LATER", 0.2)
        with pytest.raises(ProcessError, match=f"does not reach the others at 127.0.0.1:{port}"):
            torch_distributed(timeout=0.5)
