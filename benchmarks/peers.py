"""The same training step, from the same initial weights, in the peer: torch eager."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import cross_entropy

from benchmarks.workloads import PEER_OPTIMIZERS, Array, Batch, Workload


class TorchEager:
    """The workload's module with torch's own loss and optimizer, at their defaults."""

    name = f"torch {torch.__version__} eager"

    def __init__(self, workload: Workload, state: Mapping[str, Array], threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.network = workload.peer()
        copy_parameters(self.network, state)
        optimizer = PEER_OPTIMIZERS[workload.optimizer]
        self.optimizer = optimizer(self.network.parameters(), lr=workload.learning_rate)

    def prepare(self, batch: Batch) -> Callable[[], float]:
        """A call that does one step on that batch; the loss is read only where it is used."""
        x, label = torch.from_numpy(batch["x"]), torch.from_numpy(batch["label"])

        def step() -> torch.Tensor:
            self.optimizer.zero_grad()
            logits = self.network(x)
            loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), label.reshape(-1))
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        return step  # type: ignore[return-value]


def copy_parameters(network: torch.nn.Module, state: Mapping[str, Array]) -> None:
    """Gives the module the parameters of that state.

    Weights of linear and recurrent layers are laid out [out, in] in torch, [in, out] here.
    """
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            ours = torch.from_numpy(state[name].copy())
            turned = ours.ndim == 2 and not isinstance(module, torch.nn.Embedding)
            with torch.no_grad():
                parameter.copy_(ours.T if turned else ours)
