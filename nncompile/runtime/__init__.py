"""Compiled models in onnxruntime and torch: sessions, the training runner, checkpoints, files."""

from nncompile.runtime.checkpoint import check_state, load_state, save_state
from nncompile.runtime.feeds import Port, check_feeds, describe
from nncompile.runtime.files import (
    check_writable,
    make_directory,
    read_array,
    write_arrays,
    write_atomically,
    written_together,
)
from nncompile.runtime.providers import available_providers, resolve_providers
from nncompile.runtime.runner import METADATA_KEY, StepRunner
from nncompile.runtime.session import Session
from nncompile.runtime.torch_session import TorchSession

__all__ = [
    "METADATA_KEY",
    "Port",
    "Session",
    "StepRunner",
    "TorchSession",
    "available_providers",
    "check_feeds",
    "check_state",
    "check_writable",
    "describe",
    "load_state",
    "make_directory",
    "read_array",
    "resolve_providers",
    "save_state",
    "write_arrays",
    "write_atomically",
    "written_together",
]
