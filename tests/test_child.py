"""Child processes: what they raise, crashes and the end of their time are errors of the parent."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import BackendError, ModelError, ProcessError
from nncompile.runtime.child import in_child
from tests.command_line import run


def twice(x: np.ndarray) -> np.ndarray:
    return x * 2


def raises() -> None:
    raise ModelError("wrong", rows=[("a", "b")], hint="mend it")


def fails() -> None:
    raise KeyError("a fault of ours")


def crashes(number: int) -> None:
    faulthandler.disable()  # pytest has it print the stack
    signal.raise_signal(number)


def lacks_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    np.ones(2**40)


def test_a_child_returns_what_its_function_returns() -> None:
    np.testing.assert_array_equal(in_child(twice, np.arange(3), what="it"), [0, 2, 4])
    assert in_child(os.getpid, what="it") != os.getpid()
    large = np.zeros(10**6)  # more than a pipe holds
    assert in_child(twice, large, what="it").shape == large.shape


def test_an_error_of_the_child_is_one_of_the_parent() -> None:
    with pytest.raises(ModelError, match=r"wrong\n  a  b\n(.*\n)*  hint: mend it") as caught:
        in_child(raises, what="it")
    assert "in raises" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match=r"(?s)KeyError.*in the child process.*in fails"):
        in_child(fails, what="it")
    with pytest.raises(BackendError, match="not enough memory"):
        in_child(lacks_memory, what="it")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSEGV, "it crashed: segmentation fault"),
        (signal.SIGABRT, "it crashed: aborted"),
        (signal.SIGFPE, "it crashed: floating point exception"),
        (signal.SIGKILL, "it was killed: most likely it needs more memory"),
    ],
)
def test_a_crash_is_an_error(number: int, message: str) -> None:
    with pytest.raises(ProcessError, match=message) as caught:
        in_child(crashes, number, what="it")
    assert caught.value.exit_code == 128 + number


def test_an_exit_is_an_error() -> None:
    with pytest.raises(ProcessError, match="it ended with exit code 3") as caught:
        in_child(os._exit, 3, what="it")
    assert caught.value.exit_code == 1


def test_a_child_is_ended_when_its_time_is_up() -> None:
    start = time.perf_counter()
    with pytest.raises(ProcessError, match=r"it took more than 0\.1 seconds") as caught:
        in_child(time.sleep, 60, what="it", timeout=0.1)
    assert time.perf_counter() - start < 20
    assert caught.value.exit_code == 124


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux ends it")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = f"""
import os, signal, threading, time
from nncompile.runtime.child import in_child
def child():
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
in_child(child, what="it")
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if (
            not Path(f"/proc/{pid}").exists()
            or "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
        ):
            return
        time.sleep(0.05)
    pytest.fail("the child goes on")


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (lambda *_: crashes(signal.SIGSEGV), 139, "crashed: segmentation fault"),
        (lambda *_: time.sleep(60), 124, "took more than 0.2 seconds, and was ended"),
    ],
)
def test_run_survives_the_runtime(
    trained: Path, monkeypatch: pytest.MonkeyPatch, function: object, code: int, message: str
) -> None:
    """Where a session ends the process, or never comes to an end."""
    monkeypatch.setattr("nncompile.runtime.session.Session.run", function)
    result = run("run", trained / "model.onnx", "--timeout", 0.2)
    assert result.exit_code == code
    assert result.stderr.startswith("ProcessError: the run of ")
    assert message in result.stderr
    assert "Traceback" not in result.output
