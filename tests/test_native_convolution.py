"""Native convolutions: what the ops say in double precision, of any sizes, whatever the number of
threads. What needs the library is skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.graph import Graph
from nncompile.ir.native import Kernel
from nncompile.ir.op import Op, Value
from nncompile.ir.types import Type, f32, f64
from nncompile.ops.convolution.convolve import Conv, ConvTranspose, ConvWeightGradient
from nncompile.ops.windows.convolution import Window
from tests.leaves import leaf
from tests.native_checks import needs_library, session
from tests.tolerances import assert_close

KERNELS = ("Convolution", "ConvolutionInputGradient", "ConvolutionWeightGradient")
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """One convolution: its window, and the sizes of what it is applied to."""

    batch: int
    ins: int  # channels of a group
    outs: int
    groups: int
    sizes: Ints
    window: Window

    @property
    def x(self) -> Ints:
        return (self.batch, self.ins * self.groups, *self.sizes)

    @property
    def w(self) -> Ints:
        return (self.outs * self.groups, self.ins, *self.window.kernel)

    @property
    def y(self) -> Ints:
        results: Any = self.window.results(self.sizes)
        return (self.batch, self.outs * self.groups, *results)

    def calls(self) -> Iterator[tuple[Op, list[Ints]]]:
        """The three ops, and the shapes of their arguments; convolutions without and with a
        bias."""
        w = self.window
        fields = w.strides, w.pads, w.dilations, self.groups
        yield Conv(*fields), [self.x, self.w]
        yield Conv(*fields), [self.x, self.w, self.w[:1]]
        yield ConvTranspose(self.sizes, *fields), [self.y, self.w]
        yield ConvWeightGradient(w.kernel, *fields), [self.x, self.y]


def drawn(seed: int) -> Setting:
    """Sizes around those of vectors and blocks of them."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 2, 3]))

    def each(*numbers: int) -> Ints:
        return tuple(int(n) for n in rng.choice(numbers, rank))

    kernel, dilations = each(1, 2, 3, 3, 5), each(1, 1, 1, 2)
    window = Window(kernel, each(1, 1, 2, 3), each(0, 1, 2) + each(0, 1, 2), dilations)
    least = [max(1, e - b) for e, b in zip(window.extents, window.before, strict=True)]
    most = {1: 300, 2: 36, 3: 8}[rank]
    sizes = tuple(n + int(rng.integers(0, rng.choice([2, 9, most]))) for n in least)
    ins, outs = (int(n) for n in rng.choice([1, 2, 6, 9, 16, 17, 33], 2))
    batch, groups = int(rng.choice([0, 1, 2, 5])), int(rng.choice([1, 1, 1, 2, 5]))
    return Setting(batch, ins, outs, groups, sizes, window)


def square(batch: int, ins: int, outs: int, size: int, groups: int = 1) -> Setting:
    """A usual convolution, 3×3 with as many results as pixels."""
    return Setting(batch, ins, outs, groups, (size, size), Window((3, 3), (1, 1), (1,) * 4, (1, 1)))


def called(op: Op, shapes: list[Ints]) -> onnx.ModelProto:
    """A model of one call, for any batch."""
    n = [op.mixes or i == 0 for i in range(len(shapes))]
    types = [f32[("n", *s[1:]) if first else s] for s, first in zip(shapes, n, strict=True)]
    leaves = tuple(leaf(f"x{i}", t) for i, t in enumerate(types))
    proto = to_model(Graph("convolution", {"y": op(*leaves)}, leaves), kernels=True)
    assert [node.domain for node in proto.graph.node] == ["nncompile.kernels"]
    return proto


def run(proto: onnx.ModelProto, feeds: Mapping[str, Any], threads: int = 1) -> Any:
    return session(proto, threads=threads).run(None, dict(feeds))[0]


def numbers(shapes: list[Ints]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def fed(arrays: list[Any]) -> dict[str, Any]:
    return {f"x{i}": array for i, array in enumerate(arrays)}


def in_double(op: Any, arrays: list[Any]) -> Any:
    return op.numpy(*(a.astype(np.float64) for a in arrays))


@needs_library
@pytest.mark.parametrize("seeds", [range(i, 60, 6) for i in range(6)], ids=str)
def test_kernels_compute_what_the_ops_say(seeds: range) -> None:
    for setting in map(drawn, seeds):
        for op, shapes in setting.calls():
            arrays = numbers(shapes)
            found = run(called(op, shapes), fed(arrays))
            assert_close(found, in_double(op, arrays), "float32", f"{setting} {op}")


@needs_library
@pytest.mark.parametrize(
    "setting",
    [square(4, 16, 16, 32), square(3, 40, 70, 12), square(2, 1, 1, 33, groups=24)],
    ids=["channels of one vector", "blocks of channels", "a channel a group"],
)
def test_results_do_not_depend_on_the_number_of_threads(setting: Setting) -> None:
    for op, shapes in setting.calls():
        arrays = numbers(shapes)
        proto = called(op, shapes)
        one, three = (run(proto, fed(arrays), threads) for threads in (1, 3))
        assert_close(one, in_double(op, arrays), "float32", str(op))
        np.testing.assert_array_equal(one, three, err_msg=str(op))


@needs_library
@pytest.mark.parametrize("outs", [3, 16, 20])
@pytest.mark.parametrize("size", [7, 16])
def test_what_is_not_finite_stays_where_it_is_seen(outs: int, size: int) -> None:
    for op, shapes in square(2, 4, outs, size).calls():
        arrays = numbers(shapes)
        first = arrays[0].reshape(-1)
        first[[3, first.size // 2, -1]] = np.nan, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            expected = in_double(op, arrays)
        assert not np.isfinite(expected).all()
        assert_close(run(called(op, shapes), fed(arrays)), expected, "float32", str(op))


def test_a_call_says_what_it_means_in_standard_operators() -> None:
    for op, shapes in square(2, 3, 4, 5).calls():
        proto = called(op, shapes)
        check(proto)
        arrays = numbers(shapes)
        found = session(proto, with_library=False).run(None, fed(arrays))[0]
        assert_close(found, in_double(op, arrays), "float32", str(op))


def kernel(op: Any, *types: Type) -> Kernel | None:
    found: Kernel | None = op.native(*types)
    return found


def test_what_has_no_kernel() -> None:
    conv = Conv((1, 1), (0,) * 4, (1, 1))
    assert kernel(conv, f32["n", 3, "h", "w"], f32[4, 3, 3, 3])
    assert kernel(conv, f64["n", 3, "h", "w"], f64[4, 3, 3, 3]) is None
    four = Conv((1,) * 4, (0,) * 8, (1,) * 4)
    assert kernel(four, f32["n", 3, 4, 4, 4, 4], f32[4, 3, 1, 1, 1, 1]) is None
    g = f32["n", 4, "h", "w"]
    back = ConvTranspose(leaf("x", g).shape[2:], (1, 1), (0,) * 4, (1, 1))
    assert kernel(back, g, f32[4, 3, 1, 1]) is None


def test_a_file_names_the_three_kernels() -> None:
    setting = square(2, 3, 4, 5)
    results: dict[str, Value] = {}
    for i, (op, shapes) in enumerate(setting.calls()):
        results[f"y{i}"] = op(*(leaf(f"x{i}{j}", f32[s]) for j, s in enumerate(shapes)))
    proto = to_model(Graph("convolutions", results), kernels=True)
    assert {f.name.partition("_")[0] for f in proto.functions} == set(KERNELS)


@needs_library
@pytest.mark.parametrize("outs", [8, 40])
def test_sums_of_many_products_are_exact(outs: int) -> None:
    """Of 4608 products in one sum the error would be three times as large."""
    for op, shapes in square(2, 512, outs, 6).calls():
        arrays = numbers(shapes)
        expected = in_double(op, arrays)
        error = np.sqrt(np.mean(np.square(run(called(op, shapes), fed(arrays)) - expected)))
        assert error < 4e-7 * np.sqrt(np.mean(np.square(expected))), op
