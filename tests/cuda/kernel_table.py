"""`python -m tests.cuda.kernel_table`: the kernels of onnxruntime's CUDA provider, written to
`nncompile/runtime/cuda/kernels.json`.

It needs onnxruntime-gpu with the libraries of CUDA (`pip install 'onnxruntime-gpu[cuda]'
nvidia-cublas`) and a C compiler, but no GPU: what the provider asks of one while it loads is
answered by `without_a_gpu.c`. `python -m tests.cuda.kernel_table COMMAND ...` runs another command
in the same surroundings, such as `python -m tests.cuda placement`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as bindings

from nncompile.runtime.cuda.model import preload_libraries

FILE = Path(__file__).parents[2] / "nncompile" / "runtime" / "cuda" / "kernels.json"
_SOURCE = Path(__file__).with_name("without_a_gpu.c")
# What the libraries are called whose functions the source has; those of cuDNN have a version.
_LIBRARIES = ("libcuda.so.1", "libcudnn.so.9", "libnvinfer.so.10", "libnvonnxparser.so.10")
_WITHIN = "NNCOMPILE_WITHOUT_A_GPU"
_LATEST = 2**31 - 1

Row = tuple[int, int, dict[str, list[str]]]


def run_without_gpu(command: list[str]) -> int:
    """Runs the command where the CUDA provider loads without a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder) / "versions"
        versions.write_text("libcudnn.so.9 { *; };", encoding="ascii")
        for name in _LIBRARIES:
            built = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}"]
            if "cudnn" in name:
                built.append(f"-Wl,--version-script={versions}")
            subprocess.run([*built, "-o", f"{folder}/{name}", str(_SOURCE)], check=True)
        surroundings = {
            **os.environ,
            _WITHIN: "1",
            "LD_PRELOAD": f"{folder}/{_LIBRARIES[0]}",
            "LD_LIBRARY_PATH": folder,
        }
        return subprocess.run(command, env=surroundings, check=False).returncode


def load_libraries() -> None:
    """Loads the libraries of CUDA that are installed as wheels; without a GPU not that of cuDNN,
    whose place ours has."""
    if _WITHIN in os.environ:
        ort.preload_dlls = partial(ort.preload_dlls, cudnn=False)
    preload_libraries()


def kernels() -> dict[str, list[Row]]:
    """The kernels of the CUDA provider for ONNX's own operators: by operator the first and the last
    version of each, and which types its type variables may be."""
    load_libraries()
    found: dict[str, list[Row]] = {}
    for kernel in bindings.get_all_opkernel_def():
        if kernel.provider == "CUDAExecutionProvider" and kernel.domain == "":
            types = {
                variable: sorted(t.removeprefix("tensor(").removesuffix(")") for t in allowed)
                for variable, allowed in kernel.type_constraints.items()
            }
            first, last = kernel.version_range
            found.setdefault(kernel.op_name, []).append((first, last, types))
    return {name: _merged(found[name]) for name in sorted(found)}


def _merged(rows: Iterable[Row]) -> list[Row]:
    """Rows that differ in one type variable are one."""
    merged: list[Row] = []
    for first, last, types in sorted(rows, key=repr):
        for other in merged:
            if other[:2] == (first, last) and (one := _only_difference(other[2], types)):
                other[2][one] = sorted({*other[2][one], *types[one]})
                break
        else:
            merged.append((first, last, types))
    return merged


def _only_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    differing = [name for name in one if one[name] != other.get(name)]
    return differing[0] if one.keys() == other.keys() and len(differing) == 1 else None


def write() -> None:
    """Writes the table, an operator a line."""
    lines = [
        f'    "{name}": {json.dumps([[a, None if b == _LATEST else b, t] for a, b, t in rows])}'
        for name, rows in kernels().items()
    ]
    head = f'{{\n  "onnxruntime": "{ort.__version__}",\n  "kernels": {{\n'
    FILE.write_text(head + ",\n".join(lines) + "\n  }\n}\n", encoding="ascii")
    print(f"wrote {FILE}: {len(lines)} operators of onnxruntime {ort.__version__}")


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(run_without_gpu(sys.argv[1:]))
    if _WITHIN not in os.environ:
        sys.exit(run_without_gpu([sys.executable, "-m", "tests.cuda.kernel_table"]))
    write()
