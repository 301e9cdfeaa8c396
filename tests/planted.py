"""Do the tests catch what they are for? Plants one-line faults, one after the other, in a copy of
the tree, and runs the tests that should catch each:

    python -m tests.planted                 # all; half an hour on two cores
    python -m tests.planted --only gemm     # those whose file or text has the word
    python -m tests.planted --sample 60     # so many of them, drawn by --seed

Native kernels are built in the copy, too, and what changed of them anew for each fault in them.
It prints a table and ends with 1 where fewer than nine in ten are caught. Whether the tests pass
without any fault is asked first.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.planted_faults import FAULTS, Fault

ROOT = Path(__file__).parents[1]
LIMIT = 900  # seconds for the tests of one fault: an endless loop is caught, too
ENOUGH = 0.9
IMPORTED = ("numpy", "sympy", "onnx", "onnxruntime", "torch", "sklearn.metrics")
KERNELS = "kernels"
PARTS = ("nncompile", "dsl", "tests", "examples", "benchmarks", "docs", KERNELS)
PACKAGE = "nncompile_kernels"
BUILT = "built"  # the folder of the package of native kernels in the copy


def copied(folder: Path) -> Path:
    """A copy of what the tests need, compiled so that a changed line is never overlooked."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    hashed = compileall.py_compile.PycInvalidationMode.CHECKED_HASH  # type: ignore[attr-defined]
    compileall.compile_dir(folder, quiet=1, invalidation_mode=hashed)
    return folder


def build_kernels(folder: Path) -> None:
    """The native kernels of the copy, in a folder from which its tests take them: what was built
    before stays, but for files that have changed."""
    source, objects, built = folder / KERNELS, folder / "objects", folder / BUILT
    _build("-S", source, "-B", objects, f"-DCMAKE_INSTALL_PREFIX={built}")
    _build("--build", objects, "--parallel", os.cpu_count())
    _build("--install", objects)
    shutil.copytree(source / PACKAGE, built / PACKAGE, dirs_exist_ok=True)
    # Or the library would be taken for a damaged one of those that are installed.
    about = built / f"{PACKAGE}-0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0\n")


def _build(*words: object) -> None:
    done = subprocess.run(["cmake", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"native kernels cannot be built:\n{done.stdout}\n{done.stderr}")


def passes(folder: Path, arguments: Sequence[str]) -> bool:
    """Whether pytest is content with these arguments in the copy: in a fork of this process, which
    has imported what others wrote."""
    child = os.fork()
    if not child:
        os.setsid()
        _in_copy(folder, [*arguments, "-q", "-x", "-p", "no:cacheprovider"])
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, 1, 2):  # passed, failed, or could not be imported
                raise SystemExit(f"pytest {shlex.join(arguments)} ends with {code}")
            return code == 0
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _in_copy(folder: Path, arguments: list[str]) -> NoReturn:
    """Ends the process with what pytest says there."""
    os.chdir(folder)
    first = [str(folder / BUILT), str(folder)]
    os.environ |= {"PYTHONPATH": os.pathsep.join(first), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path[:] = [*first, *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        os._exit(pytest.main(arguments))
    finally:
        os._exit(3)


def is_of_kernels(fault: Fault) -> bool:
    """Whether it is planted in what has to be built."""
    return fault.file.startswith(f"{KERNELS}/source/")


def is_caught(folder: Path, fault: Fault) -> bool:
    """Whether the tests of the fault fail where it is planted."""
    file = folder / fault.file
    text = file.read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.file} has {text.count(fault.old)} times: {fault.old.strip()}")
    file.write_text(text.replace(fault.old, fault.new))
    try:
        if is_of_kernels(fault):
            build_kernels(folder)
        return not passes(folder, shlex.split(fault.tests))
    finally:
        file.write_text(text)


def main() -> int:
    """Plants the faults, and prints which were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--only", default="", help="faults whose file or text has this word")
    parser.add_argument("--sample", type=int, help="plant so many of them")
    parser.add_argument("--seed", type=int, default=0, help="by which these are drawn")
    parser.add_argument("--without-control", action="store_true", help="plant at once")
    options = parser.parse_args()
    chosen = [f for f in FAULTS if options.only in f"{f.file} {f.old} {f.tests}"]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    chosen.sort(key=is_of_kernels)  # last: those that remain built serve no others
    survived: list[Fault] = []
    for module in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as name:
        folder = copied(Path(name))
        if any(map(is_of_kernels, chosen)):
            build_kernels(folder)
        for tests in [] if options.without_control else sorted({f.tests for f in chosen}):
            if not passes(folder, shlex.split(tests)):
                raise SystemExit(f"without any fault these fail: {tests}")
        for fault in chosen:
            start = time.perf_counter()
            caught = is_caught(folder, fault)
            survived += [] if caught else [fault]
            seconds = time.perf_counter() - start
            line = " ".join(fault.old.split())[:70]
            word = "caught" if caught else "SURVIVED"
            print(f"{word:8}  {seconds:4.0f} s  {fault.file}: {line}", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    return int(len(chosen) - len(survived) < ENOUGH * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
