"""torch.compile with inductor: the loss and its gradient compiled, and the fused optimizer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Absent, Lacking, Plain, State, installed
from benchmarks.peers.torch_eager import NETWORKS, Inference, Step, module_of
from benchmarks.workloads import Batch, Workload

LIMIT = 60.0  # seconds that the compilation of one side may take


class CompiledTorch:
    """`torch.compile` at its defaults, of steps whose first call takes at most `limit` seconds."""

    name = "torch.compile"

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit

    def start(self, threads: int) -> None:
        # Kernels are compiled in this process, so that the limit ends it.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        self.torch, self.networks = installed("torch", NETWORKS)
        self.torch.set_num_threads(threads)
        check_compiler()

    def training(self, workload: Workload, state: State, threads: int) -> _First:
        network = module_of(self.networks, workload, state)
        compiled = self.torch.compile
        return _First(Step(self.torch, workload, network, {"fused": True}, compiled), self.limit)

    def inference(self, workload: Workload, state: State, threads: int) -> _First:
        network = module_of(self.networks, workload, state).eval()
        return _First(Inference(self.torch, self.torch.compile(network)), self.limit)

    def finish(self) -> None:
        self.torch.compiler.reset()


class _First(Plain):
    """A side whose first call compiles, under a limit of time."""

    def __init__(self, side: Step | Inference, limit: float) -> None:
        self.side = side
        self.limit = limit
        self.is_ready = False

    def call(self, batch: Batch) -> Callable[[], Any]:
        call = self.side.call(batch)

        def first() -> Any:
            if self.is_ready:
                return call()
            start = time.monotonic()
            try:
                with time_limit(self.limit):
                    result = call()
            except Exception as error:  # whatever stops a compiler of such size
                if time.monotonic() - start >= self.limit:  # it wraps what it catches
                    raise Lacking(f"not compiled within {self.limit:g} s") from None
                raise Lacking(f"does not compile: {_line(error)}") from None
            self.is_ready = True
            return result

        return call if self.is_ready else first


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in the block after that time. It stops what runs in Python."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_compiler() -> None:
    """Raises `Absent` where no C++ compiler works."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise Absent("there is no C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "try.cpp"
        source.write_text("#include <vector>\nint main() { return std::vector<int>(1)[0]; }\n")
        run = [compiler, str(source), "-o", str(source.with_suffix(""))]
        try:
            done = subprocess.run(run, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Absent(f"{compiler} does not run: {error.strerror}") from None
    if done.returncode:
        raise Absent(f"{compiler} does not compile: {_line(done.stderr)}")


def _line(error: object) -> str:
    """The first line of what went wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]
