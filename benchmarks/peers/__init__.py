"""The sides of a row: ours, and those that it is measured against."""

from benchmarks.peers.base import Absent, Lacking, Peer, Side
from benchmarks.peers.compiled_torch import CompiledTorch
from benchmarks.peers.jax_jit import JaxJit
from benchmarks.peers.ours import Ours, OursInTorchScript
from benchmarks.peers.torch_eager import TorchEager

PEERS: tuple[Peer, ...] = (
    TorchEager("torch eager"),
    TorchEager("torch foreach", foreach=True),
    TorchEager("torch fused", fused=True),
    CompiledTorch(),
    JaxJit(),
)

__all__ = [
    "PEERS",
    "Absent",
    "CompiledTorch",
    "JaxJit",
    "Lacking",
    "Ours",
    "OursInTorchScript",
    "Peer",
    "Side",
    "TorchEager",
]
