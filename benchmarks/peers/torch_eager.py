"""torch as most use it, with one of its three kinds of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.networks.sizes import IMAGES
from benchmarks.peers.base import NO_IMAGES, NO_OPTIMIZER, Lacking, Plain, State, installed
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
    """Eager mode; `foreach` and `fused` are those of its optimizers. With `channels_last` images
    and kernels are laid out so, which the library of its convolutions prefers."""

    def __init__(self, name: str, channels_last: bool = False, **optimizing: bool) -> None:
        self.name = name
        self.channels_last = channels_last
        self.optimizing = optimizing

    def start(self, threads: int) -> None:
        self.torch, self.networks = installed("torch", NETWORKS)
        self.torch.set_num_threads(threads)

    def training(self, workload: Workload, state: State, threads: int) -> Step:
        network, put = self._laid_out(workload, state)
        return Step(self.torch, workload, network, self.optimizing, put=put)

    def inference(self, workload: Workload, state: State, threads: int) -> Inference:
        if self.optimizing and not self.channels_last:
            raise Lacking(NO_OPTIMIZER)
        network, put = self._laid_out(workload, state)
        return Inference(self.torch, network.eval(), put)

    def _laid_out(self, workload: Workload, state: State) -> tuple[Any, Callable[[Array], Any]]:
        """The network, and what makes tensors of its batches."""
        torch = self.torch
        if not self.channels_last:
            return module_of(self.networks, workload, state), torch.from_numpy
        if workload.network not in IMAGES:
            raise Lacking(NO_IMAGES)
        last = torch.channels_last
        network = module_of(self.networks, workload, state).to(memory_format=last)

        def put(array: Array) -> Any:
            tensor = torch.from_numpy(array)
            return tensor.to(memory_format=last) if tensor.ndim == 4 else tensor

        return network, put

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
        put: Callable[[Array], Any] | None = None,
    ) -> None:
        self.put = put or torch.from_numpy
        self.workload = workload
        name, options = _OPTIMIZERS[workload.optimizer]
        self.optimizer = getattr(torch.optim, name)(
            network.parameters(), lr=workload.learning_rate, **options, **optimizing
        )
        self.loss = wrapped(loss_function(torch, workload, network))

    def call(self, batch: Batch) -> Callable[[], Any]:
        """The loss is read only where it is used."""
        inputs = [self.put(x) for x in inputs_of(batch)]
        target = self.put(target_of(batch))
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

    def __init__(self, torch: Any, network: Any, put: Callable[[Array], Any] | None = None) -> None:
        self.torch = torch
        self.network = network
        self.put = put or torch.from_numpy

    def call(self, batch: Batch) -> Callable[[], Any]:
        inputs = [self.put(x) for x in inputs_of(batch)]

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
