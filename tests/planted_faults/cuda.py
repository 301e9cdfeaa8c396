"""Faults in what sessions on CUDA are given."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

_TEST = "tests/test_cuda.py"
CUDA = (
    Fault("nncompile/runtime/cuda/spellings.py", "-(2.0**33) if", "-2.0 if", _TEST),
    Fault("nncompile/runtime/cuda/spellings.py", "w.Sub(w.Log(v), lost)", "w.Log(v)", _TEST),
    Fault("nncompile/runtime/cuda/spellings.py", "if k + 1 not in ones", "if k not in ones", _TEST),
    Fault("nncompile/runtime/cuda/graphs.py", "or i in read_there", "", _TEST),
    Fault("nncompile/runtime/cuda/model.py", "if isinstance(source, str):", "if False:", _TEST),
    Fault("nncompile/runtime/cuda/kernels.py", "main in INTEGERS", "main is None", _TEST),
    Fault("nncompile/runtime/cuda/placement.py", "group.ep_name != CUDA", "False", _TEST),
)
