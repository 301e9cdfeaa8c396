"""jax: the whole step compiled, and its state donated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.base import Lacking, State, installed
from benchmarks.workloads import Array, Batch, Workload, inputs_of, target_of

NETWORKS, UPDATES = "benchmarks.networks.in_jax", "benchmarks.peers.jax_updates"


class JaxJit:
    """`jax.jit(step, donate_argnums=0)` on the processor."""

    name = "jax.jit"

    def start(self, threads: int) -> None:
        # They are read where jax first starts.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("NPROC", str(threads))
        if threads == 1:
            os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
        self.jax, self.networks, self.updates = installed("jax", NETWORKS, UPDATES)

    def training(self, workload: Workload, state: State, threads: int) -> _Step:
        return _Step(self, workload, state)

    def inference(self, workload: Workload, state: State, threads: int) -> _Inference:
        return _Inference(self, workload, state)

    def finish(self) -> None:
        self.jax.clear_caches()

    def network_of(self, workload: Workload) -> Callable[..., Any]:
        """The network with its options. Raises `Lacking`."""
        network = workload.written_in(self.networks)
        if network is None:
            raise Lacking(f"{workload.network} is not written in jax")
        return partial(network, **workload.options)

    def values(self, state: State) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters, and the running statistics: `weight` without its slot `weight.m`, and
        without the count of steps."""
        own = {n: a for n, a in state.items() if a.ndim and n.rpartition(".")[0] not in state}
        running = {n: a for n, a in own.items() if n.rpartition(".")[2].startswith("running_")}
        trained = {n: a for n, a in own.items() if n not in running}
        return (
            {n: self.jax.device_put(self.networks.stored(a.copy())) for n, a in trained.items()},
            {n: self.jax.device_put(a.copy()) for n, a in running.items()},
        )


def _narrow(array: Array) -> Array:
    """jax's own integers."""
    return array.astype(np.int32) if array.dtype == np.int64 else array


class _Asynchronous:
    """A side whose calls return before they are done."""

    def __init__(self, peer: JaxJit, workload: Workload) -> None:
        self.peer, self.workload = peer, workload
        self.last: Any = None

    def on_device(self, arrays: list[Array]) -> list[Any]:
        """Arrays of a batch, as the network takes them."""
        put, fed = self.peer.jax.device_put, self.peer.networks.fed
        return [put(fed(_narrow(x), self.workload.network)) for x in arrays]

    def read(self, result: Any) -> Array:
        return np.asarray(result)

    def wait(self) -> None:
        if self.last is not None:
            self.last.block_until_ready()


class _Step(_Asynchronous):
    def __init__(self, peer: JaxJit, workload: Workload, state: State) -> None:
        super().__init__(peer, workload)
        network = peer.network_of(workload)
        parameters, running = peer.values(state)
        initial, update = peer.updates.optimizer(workload.optimizer, workload.learning_rate)
        key = peer.jax.random.key(0, impl="rbg")
        self.state = (parameters, running, initial(parameters), key)
        loss_of = _losses(peer.jax)[workload.loss]
        scope = peer.networks.Scope

        def loss(
            trained: Mapping[str, Any], running: Any, key: Any, target: Any, *inputs: Any
        ) -> Any:
            p = scope({**trained, **running}, True, key)
            return loss_of(network(p, *inputs), target), p.updates

        def step(state: Any, target: Any, *inputs: Any) -> Any:
            trained, running, slots, key = state
            key, now = peer.jax.random.split(key)
            gradient = peer.jax.value_and_grad(loss, has_aux=True)
            (value, running), slopes = gradient(trained, running, now, target, *inputs)
            trained, slots = update(trained, slopes, slots)
            return (trained, running, slots, key), value

        self.step = peer.jax.jit(step, donate_argnums=0)

    def call(self, batch: Batch) -> Callable[[], Any]:
        inputs = self.on_device(inputs_of(batch))
        (target,) = self.on_device([target_of(batch)])

        def called() -> Any:
            self.state, self.last = self.step(self.state, target, *inputs)
            return self.last

        return called


class _Inference(_Asynchronous):
    def __init__(self, peer: JaxJit, workload: Workload, state: State) -> None:
        super().__init__(peer, workload)
        network = peer.network_of(workload)
        parameters, running = peer.values(state)
        self.state = {**parameters, **running}
        scope = peer.networks.Scope
        self.network = peer.jax.jit(lambda values, *x: network(scope(values, False), *x))

    def call(self, batch: Batch) -> Callable[[], Any]:
        inputs = self.on_device(inputs_of(batch))

        def called() -> Any:
            self.last = self.network(self.state, *inputs)
            return self.last

        return called

    def read(self, result: Any) -> Array:
        array = np.asarray(result)
        return np.moveaxis(array, -1, 1) if array.ndim > 3 else array


def _losses(jax: Any) -> dict[str, Callable[[Any, Any], Any]]:
    def cross_entropy(logits: Any, target: Any) -> Any:
        rows = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]))
        return -jax.numpy.take_along_axis(rows, target.reshape(-1, 1), 1).mean()

    def mse(y: Any, target: Any) -> Any:
        return jax.numpy.square(y - target).mean()

    return {"cross_entropy": cross_entropy, "mse": mse}
