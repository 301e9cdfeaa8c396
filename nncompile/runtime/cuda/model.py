"""A model as a session on CUDA takes it."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs

from nncompile.runtime.cuda.placement import RECORD, predicted, reported, tell
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS

_WEIGHTS_BESIDE = "session.model_external_initializers_file_folder_path"


class OnCuda:
    """A model, spelled in the kernels of CUDA, for a session with these `options`, which are set to
    know where nodes are computed. `source` is what onnxruntime loads, as it was given where nothing
    was to be changed."""

    def __init__(self, source: str | bytes, options: ort.SessionOptions) -> None:
        preload_libraries()
        options.add_session_config_entry(RECORD, "1")
        self.source = source
        self._model: onnx.ModelProto | None = None
        try:
            if isinstance(source, bytes):
                given = onnx.load_model_from_string(source)
            else:
                given = onnx.load(source, load_external_data=False)
        except (DecodeError, OSError):
            return  # onnxruntime says what is wrong with it
        self._model, is_changed = spelled(given, SPELLINGS)
        if is_changed:
            self.source = self._model.SerializeToString()
            if isinstance(source, str):
                folder = os.path.dirname(os.path.abspath(source))
                options.add_session_config_entry(_WEIGHTS_BESIDE, folder)

    def tell(self, session: ort.InferenceSession, name: str, strict: bool) -> None:
        """Warns of nodes that compute with data on the CPU in this session; raises `ProviderError`
        if `strict`."""
        if self._model is not None:
            nodes = reported(self._model, session)
            tell(predicted(self._model) if nodes is None else nodes, name, strict)
        self._model = None


@cache
def preload_libraries() -> None:
    """Loads the libraries of CUDA and cuDNN that were installed as wheels (`nncompile[cuda]`),
    where this onnxruntime can: its provider finds them by no path of its own."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # the provider itself says what is missing
            preload()
