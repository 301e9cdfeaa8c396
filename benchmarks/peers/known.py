"""The peers, in the order of their columns."""

from __future__ import annotations

from benchmarks.peers.base import Peer
from benchmarks.peers.compiled_torch import CompiledTorch
from benchmarks.peers.jax_jit import JaxJit
from benchmarks.peers.torch_eager import TorchEager

PEERS: tuple[Peer, ...] = (
    TorchEager("torch eager"),
    TorchEager("torch foreach", foreach=True),
    TorchEager("torch fused", fused=True),
    TorchEager("torch channels last", channels_last=True, fused=True),
    CompiledTorch(),
    JaxJit(),
)
