"""Compiled models in onnxruntime and torch: sessions, the training runner, checkpoints, files."""

from nncompile.diagnostics.files import (
    check_writable,
    make_directory,
    new_directory,
    remove_directory,
    sweep,
    sync,
    write_atomically,
    written_together,
)
from nncompile.runtime.array_files import read_array, read_arrays, write_arrays
from nncompile.runtime.checkpoint import check_state, load_state, save_state
from nncompile.runtime.feeds import Port, check_feeds, describe
from nncompile.runtime.providers import available_providers, resolve_providers
from nncompile.runtime.runner import StepRunner
from nncompile.runtime.session import Session, vocabularies
from nncompile.runtime.step_sources import METADATA_KEY
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
    "new_directory",
    "read_array",
    "read_arrays",
    "remove_directory",
    "resolve_providers",
    "save_state",
    "sweep",
    "sync",
    "vocabularies",
    "write_arrays",
    "write_atomically",
    "written_together",
]
