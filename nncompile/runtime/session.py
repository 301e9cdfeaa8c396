"""A model loaded by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from nncompile.diagnostics.errors import BackendError, FeedError, Row, whole_number
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.kinds import shown
from nncompile.ir.types import Array, bf16
from nncompile.program.category_codes import METADATA_KEY, CategoryCodes, from_json
from nncompile.runtime.buffers import run_bound
from nncompile.runtime.cuda.failures import cuda_failure, no_memory
from nncompile.runtime.cuda.kernels import CUDA
from nncompile.runtime.cuda.model import OnCuda
from nncompile.runtime.external_data import check_external_data
from nncompile.runtime.feeds import Port, check_feeds, describe
from nncompile.runtime.native import Library, names_of, native_library, register
from nncompile.runtime.node_lines import rows_of_node
from nncompile.runtime.providers import (
    Provider,
    check_started,
    device_of,
    resolve_providers,
    strictness,
)
from nncompile.runtime.stopping import Stop

RUNTIME_VERSION: str = ort.__version__
_NO_KERNEL = "Could not find an implementation"
_NO_KERNEL_HINT = (
    "this provider has no kernel of it for these element types, another may have one; a step of 16 "
    "bits needs none where it was made with emulate=True (--emulate)"
)
_DTYPES = {
    "tensor(bool)": np.dtype("bool"),
    "tensor(double)": np.dtype("float64"),
    "tensor(float)": np.dtype("float32"),
    "tensor(float16)": np.dtype("float16"),
    "tensor(bfloat16)": bf16.numpy,
    **{f"tensor({u}int{n})": np.dtype(f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64)},
}
# onnxruntime's errors have no common base; its bindings raise RuntimeError for some of them.
RUN_ERRORS = (
    errors.EPFail,
    errors.EngineError,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoModel,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
    RuntimeError,
)
# How much onnxruntime may rewrite a graph before it runs it, from nothing to everything.
OPTIMIZATIONS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_CPU = ["CPUExecutionProvider"]
# CPUs with AVX2 and without VNNI add up products of 8 bits in pairs of 16 bits, which do not hold
# all of them: results are far off. This has such CPUs take another way, and is nothing to others.
_EXACT_INTEGERS = "session.x64quantprecision", "1"
_SHARING = "session.use_env_allocators", "1"
# After a run its threads do not look out for the next one: they would take cores from others.
_RESTING = "session.force_spinning_stop", "1"
_WITHOUT_WAITING = "disable_synchronize_execution_providers"
_NOT_TEXT = "has names that are not text in UTF-8"
_FATAL = 4  # onnxruntime's own print-out of an error that is raised as well would be a second one


class Serializable(Protocol):
    """An `onnx.ModelProto`, without importing onnx."""

    def SerializeToString(self) -> bytes: ...


Model = str | os.PathLike[str] | bytes | Serializable


@suggests_options
class Session:
    """A model in onnxruntime, on the requested providers and no others.

    `model` is a path, the bytes of a file, or an `onnx.ModelProto`. `threads` is the number that
    one operator may use (None: as many as there are cores). Without `reuse` no intermediate tensor
    takes the memory of another: a model whose tensors all fit into the processor's cache runs some
    3 % faster so, a larger one slower. `optimization` names one of `OPTIMIZATIONS`. `profile`
    begins the name of a file of what each node takes, see `nncompile.runtime.profiling`. Native
    kernels that the model calls are used where they are installed, unless `native` is False; then
    `library` says which. `optimized` is a file that the model is written to as it is run. Sessions
    with `shares_memory` take what they need on the CPU from one place: those that run in turn take
    as much as the largest. With `takes_turns` its threads rest between its runs, and leave the
    cores to those of other sessions. Raises `FileError` or `BackendError` where the model cannot be
    loaded, `ProviderError` where a provider is missing. On CUDA the model is spelled in the kernels
    that are there, and a `PlacementWarning` names the nodes of data that the CPU computes
    nevertheless; the option `strict_device` of the provider, as in `("cuda", {"strict_device":
    True})`, makes it a `ProviderError`.
    """

    written: frozenset[str] = frozenset()  # states that its runs write over, whatever is bound

    def __init__(
        self,
        model: Model,
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        reuse: bool = True,
        optimization: str = "all",
        profile: str | None = None,
        native: bool | None = None,
        optimized: str | None = None,
        shares_memory: bool = False,
        takes_turns: bool = False,
    ) -> None:
        if threads is not None:
            whole_number("threads", threads, 1)
        if optimization not in OPTIMIZATIONS:
            raise BackendError(
                f"onnxruntime has no optimization level {optimization!r}",
                hint=f"choose one of {', '.join(OPTIMIZATIONS)}",
            )
        resolved, strict = strictness(resolve_providers(providers))
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.enable_mem_reuse = reuse
        options.add_session_config_entry(*_EXACT_INTEGERS)
        options.graph_optimization_level = OPTIMIZATIONS[optimization]
        if shares_memory:
            _share_memory()
            options.add_session_config_entry(*_SHARING)
        if takes_turns:
            options.add_session_config_entry(*_RESTING)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        if optimized is not None:
            options.optimized_model_filepath = optimized
        source, self.name = _source(model)
        self._file = model if isinstance(model, str | os.PathLike) else None
        on_cuda = OnCuda(source, options) if resolved[0][0] == CUDA else None
        self.library: Library | None = None
        names = names_of(model) if [name for name, _ in resolved] == _CPU else ""
        if names and (library := native_library(native)) is not None:
            self.library = register(library, options, names, threads)
        try:
            self.onnxruntime = ort.InferenceSession(
                source if on_cuda is None else on_cuda.source,
                options,
                providers=resolved,
                enable_fallback=False,
            )
        except errors.InvalidProtobuf:
            raise BackendError(
                f"{self.name} is not an ONNX model",
                hint="it may be truncated or another kind of file",
            ) from None
        except RUN_ERRORS as error:
            reason, hint = _told(error, on_cuda is not None)
            raise BackendError(
                f"onnxruntime cannot load {self.name}: {reason}", hint=hint
            ) from error
        except UnicodeDecodeError:  # of the message itself, which quotes names
            raise BackendError(f"{self.name} {_NOT_TEXT}, and cannot be loaded") from None
        except MemoryError:
            raise BackendError(f"{self.name} does not fit in memory") from None
        check_started(resolved, self.onnxruntime.get_providers())
        if on_cuda is not None:
            on_cuda.tell(self.onnxruntime, self.name, strict)
        # CUDA refuses to reduce what has no elements, or ends the process over it.
        self._for_empty = None if on_cuda is None else model
        self.device = device_of(resolved)
        try:
            self.inputs = tuple(map(_port, self.onnxruntime.get_inputs()))
            self.outputs = tuple(map(_port, self.onnxruntime.get_outputs()))
            meta = self.onnxruntime.get_modelmeta()
            self.metadata: dict[str, str] = dict(meta.custom_metadata_map)
        except UnicodeDecodeError:
            raise BackendError(f"{self.name} {_NOT_TEXT}") from None
        infos = getattr(self.onnxruntime, "get_input_memory_infos", None)
        self._memory = (
            {}
            if infos is None
            else dict(zip((port.name for port in self.inputs), infos(), strict=True))
        )
        ports = (*self.inputs, *self.outputs)
        self._has_run = False
        self._binds = any(port.dtype == bf16.numpy for port in ports)  # `run` takes no such arrays

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs."""
        return self.inputs

    @property
    def vocabularies(self) -> dict[str, CategoryCodes]:
        """The categories whose codes the inputs are, by input name: of each `Vocabulary` in the
        model. Raises `FileError` where the file holds them in a form that cannot be read."""
        text = self.metadata.get(METADATA_KEY)
        return from_json(text, self.name) if text else {}

    def run(
        self,
        feeds: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        stop: Stop | None = None,
    ) -> dict[str, Array]:
        """The outputs, or those named, by name. Another thread can end it by `stop`. Raises
        `FeedError` for data that do not fit the inputs, `BackendError` where the model fails on
        them or is stopped."""
        arrays = check_feeds(self.inputs, feeds)
        output_names = [port.name for port in self.outputs]
        names = output_names if outputs is None else list(outputs)
        unknown = [name for name in names if name not in output_names]
        if unknown:
            raise FeedError(
                f"the model has no output {', '.join(map(repr, unknown))}",
                hint=f"its outputs are {', '.join(output_names)}",
            )
        if not names:
            return {}
        if self._for_empty is not None and any(x.size == 0 for x in arrays.values()):
            return self._of_empty.run(feeds, outputs, stop)
        options = None if stop is None else stop.options
        try:
            if self._binds:
                results = run_bound(self.onnxruntime, arrays, names, options)
            else:
                options = options if self._has_run else self._first_options(options)
                results = self.onnxruntime.run(names, arrays, options)
                self._has_run = True
        except RUN_ERRORS as error:
            raise self.failure(error, arrays) from error
        except UnicodeDecodeError:
            raise self.failure(RuntimeError(f"it {_NOT_TEXT}"), arrays) from None
        except MemoryError:
            raise self.failure(RuntimeError("there is not enough memory"), arrays) from None
        # onnxruntime gives a 0-d result as a numpy scalar.
        return {name: np.asarray(x) for name, x in zip(names, results, strict=True)}

    @cached_property
    def _of_empty(self) -> Session:
        """The model on the CPU."""
        assert self._for_empty is not None
        return Session(self._for_empty, threads=1)

    def device_of_input(self, name: str) -> tuple[str, int] | None:
        """The device type and number where the session reads that input: also on a GPU it reads
        some in main memory, whose nodes run there. None where this onnxruntime does not tell."""
        if self.device[0] == "cpu":
            return self.device
        if name not in self._memory:
            return None
        return self.device if self._memory[name].name.lower() == self.device[0] else ("cpu", 0)

    def failure(
        self, error: Exception, feeds: Mapping[str, Array], model: Model | None = None
    ) -> BackendError:
        """The error of onnxruntime in a run, with the name of the model, the user's line of the
        node that failed, which is looked up in `model` or its file, and the inputs."""
        model = model or self._file
        rows: list[Row] = [] if model is None else rows_of_node(model, error)
        rows += [("input", name, describe(x.dtype, x.shape)) for name, x in feeds.items()]
        reason, hint = _told(error, self.device[0] == "cuda")
        return BackendError(f"{self.name} failed on these data: {reason}", rows=rows, hint=hint)

    def run_first(self, binding: Any, stop: Stop | None = None) -> None:
        """Runs what is bound, of sizes that were not run before; see `_first_options`."""
        options = self._first_options(None if stop is None else stop.options)
        self.onnxruntime.run_with_iobinding(binding, options)

    def run_until(self, binding: Any, stop: Stop) -> None:
        """Runs what is bound, until it is stopped."""
        self.onnxruntime.run_with_iobinding(binding, stop.options)

    def _first_options(self, options: ort.RunOptions | None = None) -> ort.RunOptions:
        """Those of the first run with some sizes: they give the memory back that it takes.
        onnxruntime plans one block of memory for such sizes in it, for all later runs, beside which
        it would keep the other for ever."""
        options = options or ort.RunOptions()
        if self.device[0] == "cpu":
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def runner(self, binding: Any, waits: bool = True) -> Callable[[], None]:
        """A function that runs what is bound: past onnxruntime's Python wrapper, which takes
        longer than a small model, where this version has the way that it takes itself. Unless it
        `waits`, it comes back when the work is handed over to the device."""
        options = ort.RunOptions()
        if not waits:
            options.add_run_config_entry(_WITHOUT_WAITING, "1")
        return self.run_of(binding, options)

    def run_of(self, binding: Any, options: ort.RunOptions) -> Callable[[], None]:
        """A function that runs what is bound, with these options."""
        inner = getattr(binding, "_iobinding", None)
        if self._run is None or inner is None:
            return partial(self.onnxruntime.run_with_iobinding, binding, options)
        # Without options onnxruntime makes new ones for every run, in a microsecond.
        return partial(self._run, inner, options)

    @property
    def _run(self) -> Callable[..., None] | None:
        return getattr(getattr(self.onnxruntime, "_sess", None), "run_with_iobinding", None)

    @property
    def runs_at_once(self) -> bool:
        """Whether `run_of` gives a function of onnxruntime's own, in which Python handles no
        signal."""
        return self._run is not None and hasattr(self.onnxruntime.io_binding(), "_iobinding")

    def io_binding(self) -> Any:
        """What binds inputs and outputs to memory, for several runs."""
        return self.onnxruntime.io_binding()


@suggests_names
def vocabularies(model: Model) -> dict[str, CategoryCodes]:
    """The categories whose codes the inputs of an ONNX model are, by input name: to encode what a
    program has before it feeds the model. `model` is that of a `Session`; see its errors."""
    return Session(model, threads=1, optimization="none").vocabularies


@cache
def _share_memory() -> None:
    """Makes the allocator that sessions of this process may share. Where the program has made one
    itself, that stays. Its pieces are of 128 MB or a power of two more, of which the system gives
    what is used: smaller ones fit one session, and not the next."""
    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    pieces = ort.OrtArenaCfg({"initial_growth_chunk_size_bytes": 2**27})
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, use), pieces)


def _source(model: Model) -> tuple[str | bytes, str]:
    """What onnxruntime loads, and what errors call it."""
    if isinstance(model, bytes):
        check_external_data(model)
        return model, "the model"
    if isinstance(model, str | os.PathLike):
        check_external_data(model)
        return os.fspath(model), os.fspath(model)
    if hasattr(model, "SerializeToString"):
        return model.SerializeToString(), "the model"
    raise BackendError(
        f"a session runs a model: a path, the bytes of a file or a ModelProto, got {shown(model)}",
        hint="compile_model(net).session(...) makes one of a model of the language",
    )


def _told(error: Exception, on_cuda: bool) -> tuple[str, str | None]:
    """onnxruntime's message, and a way out, where a device, memory or a kernel is what failed."""
    text = str(error)
    if on_cuda and (found := cuda_failure(text)):
        return found
    if memory := no_memory(text):
        return memory, "a smaller batch_size takes less"
    return reason_of_runtime(error), _NO_KERNEL_HINT if _NO_KERNEL in text else None


def reason_of_runtime(error: Exception) -> str:
    """onnxruntime's message without its codes, source paths and blank lines."""
    text = " ".join(str(error).split())
    for mark in ("Status Message: ", "[ONNXRuntimeError] : "):
        text = text.rpartition(mark)[2]
    return text


def _port(argument: Any) -> Port:
    if argument.type not in _DTYPES:
        raise BackendError(
            f"{argument.name!r} is a {argument.type}, which is not supported",
            hint="inputs and outputs must be tensors of numbers",
        )
    shape = tuple(size if size != "" else None for size in argument.shape)
    return Port(argument.name, _DTYPES[argument.type], shape)
