"""Every op that a native kernel computes, on its own samples: by the library, by the function that
stands for it in files, and in numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.native import Native
from nncompile.ir.op import Op
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.loops.outlined import Outlined
from tests.native_checks import needs_library, run
from tests.op_types import Case, cases_of, registered_ops

ROOT = Path(__file__).parent.parent
# No kernel has this name; what the others compute is in tests of their own, too.
NATIVE = [op for op in registered_ops() if issubclass(op, Native) and op is not Outlined]
DEEP = (Gemm,)  # of which the samples are too small for a kernel
# Weights that are not finite are multiplied with zeros around a gradient: see docs/native.md.
BESIDE = ("ConvTranspose-1",)
CASES = [
    pytest.param(case, id=case.name, marks=pytest.mark.slow if i > 1 else ())
    for op in NATIVE
    for i, case in enumerate(cases_of(op))
]


def lowered(case: Case) -> onnx.ModelProto:
    proto = to_model(case.graph(case.results), kernels=True)
    check(proto)
    return proto


def close(found: Any, expected: Any, name: str) -> None:
    size = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6 * size, err_msg=name)


@needs_library
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_computes_what_its_op_says(case: Case) -> None:
    proto = lowered(case)
    for sizes in case.bindings if proto.functions else ():
        feeds = case.feeds(sizes)
        found = run(proto, feeds, with_library=True)
        for i, expected in enumerate(case.numpy(feeds, sizes)):
            close(found[f"y{i}"], expected, f"y{i} at {sizes}")


@needs_library
@pytest.mark.parametrize("op", NATIVE, ids=lambda op: op.__name__)
def test_what_is_not_finite_goes_as_the_op_says(op: type[Op]) -> None:
    for case in cases_of(op)[:2]:
        proto = lowered(case)
        for special in (np.nan, np.inf) if proto.functions else ():
            for given in with_one(case, special):
                found = run(proto, given, with_library=True)
                check_not_finite(case, proto, given, found)


def with_one(case: Case, special: float) -> Iterator[dict[str, Any]]:
    """The arguments of a case, of which one has that number in it."""
    feeds = case.feeds(case.bindings[0])
    for name, x in feeds.items():
        if x.dtype == np.float32 and x.size:
            changed = x.copy()
            changed.reshape(-1)[changed.size // 2] = special
            yield {**feeds, name: changed}


def check_not_finite(case: Case, proto: onnx.ModelProto, given: Any, found: Any) -> None:
    """NaN and the infinities are where numpy or the function has them: operators of onnxruntime
    have NaN where an infinity was to be, by ways of computing that take more differences."""
    exact = case.numpy(given, case.bindings[0])
    inlined = run(proto, given)
    for i, expected in enumerate(exact):
        y, other = found[f"y{i}"], inlined[f"y{i}"]
        same = [np.array_equal(np.isnan(y), np.isnan(z)) for z in (expected, other)]
        if case.name in BESIDE:
            assert np.isnan(y)[np.isnan(expected)].all()
            continue
        assert any(same), f"{case.name}: y{i} is NaN elsewhere"
        reference = expected if same[0] else other
        close(y[~np.isnan(y)], reference[~np.isnan(y)], f"{case.name} y{i}")


def test_every_kind_of_op_has_a_sample_with_a_kernel() -> None:
    for op in NATIVE:
        types = ([v.type for v in case.leaves] for case in cases_of(op))
        kernels = [
            case.sample.op.native(*given)  # type: ignore[attr-defined]  # each is `Native`
            for case, given in zip(cases_of(op), types, strict=True)
        ]
        assert any(kernels) or op in DEEP, op.__name__


def test_the_page_lists_the_kernels() -> None:
    sources = (ROOT / "kernels/source").glob("*_operator*.cpp")
    text = "".join(source.read_text("utf-8") for source in sources)
    kernels = set(re.findall(r'\{"([A-Z]\w+)", "', text))
    table = (ROOT / "docs/native.md").read_text("utf-8").partition("## The kernels")[2]
    listed = re.findall(r"`([A-Z]\w+)`", table.partition("\n\nAn")[0])
    assert kernels and sorted(kernels) == sorted(listed)
