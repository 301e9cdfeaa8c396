"""torch as most use it, with one of its three kinds of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers.base import Lacking, Plain, State, installed
from benchmarks.workloads import Array, Batch, Workload, inputs_of, target_of

NETWORKS = "benchmarks.networks.in_torch"
# The names of the optimizers in torch, and what they are given.
_OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
}


class TorchEager:
    """Eager mode; `foreach` and `fused` are those of its optimizers."""

    def __init__(self, name: str, **optimizing: bool) -> None:
        self.name = name
        self.optimizing = optimizing

    def start(self, threads: int) -> None:
        self.torch, self.networks = installed("torch", NETWORKS)
        self.torch.set_num_threads(threads)

    def training(self, workload: Workload, state: State, threads: int) -> Step:
        network = module_of(self.networks, workload, state)
        return Step(self.torch, workload, network, self.optimizing)

    def inference(self, workload: Workload, state: State, threads: int) -> Inference:
        if self.optimizing:
            raise Lacking("its optimizer has no part in inference")
        return Inference(self.torch, module_of(self.networks, workload, state).eval())

    def finish(self) -> None:
        return


class Step(Plain):
    """One training step; `wrapped` may compile the function of the loss."""

    def __init__(
        self,
        torch: Any,
        workload: Workload,
        network: Any,
        optimizing: dict[str, bool],
        wrapped: Callable[[Any], Any] = lambda function: function,
    ) -> None:
        self.torch = torch
        self.workload = workload
        name, options = _OPTIMIZERS[workload.optimizer]
        self.optimizer = getattr(torch.optim, name)(
            network.parameters(), lr=workload.learning_rate, **options, **optimizing
        )
        self.loss = wrapped(loss_function(torch, workload, network))

    def call(self, batch: Batch) -> Callable[[], Any]:
        """The loss is read only where it is used."""
        inputs = [self.torch.from_numpy(x) for x in inputs_of(batch)]
        target = self.torch.from_numpy(target_of(batch))
        loss_of, optimizer = self.loss, self.optimizer

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_of(target, *inputs)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


class Inference(Plain):
    """The network in inference mode."""

    def __init__(self, torch: Any, network: Any) -> None:
        self.torch = torch
        self.network = network

    def call(self, batch: Batch) -> Callable[[], Any]:
        inputs = [self.torch.from_numpy(x) for x in inputs_of(batch)]

        def called() -> Any:
            with self.torch.inference_mode():
                return self.network(*inputs)

        return called


def loss_function(torch: Any, workload: Workload, network: Any) -> Callable[..., Any]:
    """The loss of a target and of what the network takes."""
    cross_entropy = torch.nn.functional.cross_entropy
    mse = torch.nn.functional.mse_loss

    def classified(target: Any, *inputs: Any) -> Any:
        logits = network(*inputs)
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))

    def restored(target: Any, *inputs: Any) -> Any:
        return mse(network(*inputs), target)

    return {"cross_entropy": classified, "mse": restored}[workload.loss]


def module_of(networks: Any, workload: Workload, state: State) -> Any:
    """The network of the workload as a module with that state. Raises `Lacking`."""
    make = workload.written_in(networks)
    if make is None:
        raise Lacking(f"{workload.network} is not written in torch")
    network = make(**workload.options)
    copy_parameters(network, state)
    return network


def copy_parameters(network: Any, state: State) -> None:
    """Gives the module the parameters of that state.

    Weights of linear and recurrent layers are laid out [out, in] in torch, [in, out] here.
    """
    (torch,) = installed("torch")
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            ours: Array = state[name].copy()
            turned = ours.ndim == 2 and not isinstance(module, torch.nn.Embedding)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(ours.T.copy() if turned else ours))
