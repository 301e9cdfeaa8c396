"""Windows with uneven padding and with gaps, and integers, against numpy and torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dsl import f32, i32, i64, u32
from nncompile.autodiff.grad import grad
from nncompile.ir.interpreter import evaluate
from nncompile.ops import (
    adaptive_max_pool,
    average_pool,
    global_max_pool,
    max_pool,
    max_pool_with_indices,
)
from tests import everywhere
from tests.everywhere import torch_function
from tests.leaves import leaf

UNEVEN = [((1, 0), (0, 1)), ((0, 2), (1, 0)), ((2, 2), (0, 2)), ((2, 1), (1, 1))]


def windows(x: np.ndarray, kernel: int, stride: int, pairs: Any, dilation: int, fill: Any) -> Any:
    """All windows over the two last axes of x, the elements of each along the last two axes."""
    padded = np.pad(x, ((0, 0), (0, 0), *pairs), constant_values=fill)
    span = dilation * (kernel - 1) + 1
    view = np.lib.stride_tricks.sliding_window_view(padded, (span, span), (2, 3))
    return view[:, :, ::stride, ::stride, ::dilation, ::dilation]


@pytest.mark.parametrize("pairs", UNEVEN)
@pytest.mark.parametrize("dilation", [1, 2])
def test_uneven_padding_is_padded(pairs: Any, dilation: int) -> None:
    """As torch's pooling of what was padded, which has no such option."""
    functional = pytest.importorskip("torch").nn.functional
    around = (*pairs[1], *pairs[0])
    everywhere.check(
        lambda x: max_pool(x, 3, 2, pairs, dilation),
        lambda x: functional.max_pool2d(
            functional.pad(x, around, value=-np.inf), 3, 2, dilation=dilation
        ),
        [("n", 2, "h", "w")],
        [(2, 2, 6, 5)],
        [(1, 2, 5, 8)],
    )


@pytest.mark.parametrize("pairs", [*UNEVEN[:2], 1])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
@pytest.mark.parametrize("counted", [True, False])
def test_dilated_averages(pairs: Any, dilation: Any, counted: bool) -> None:
    """The sums of windows with gaps are convolutions with ones; so are the numbers of what
    counts."""
    torch = pytest.importorskip("torch")
    even = ((1, 1), (1, 1)) if pairs == 1 else pairs
    around = (*even[1], *even[0])

    def theirs(x: Any) -> Any:
        def total(v: Any) -> Any:
            padded = torch.nn.functional.pad(v, around)
            planes = padded.reshape(-1, 1, *padded.shape[2:])
            ones = torch.ones(1, 1, 3, 3, dtype=v.dtype)
            y = torch.nn.functional.conv2d(planes, ones, stride=2, dilation=dilation)
            return y.reshape(*v.shape[:2], *y.shape[2:])

        return total(x) / (9 if counted else total(torch.ones_like(x.detach())))

    everywhere.check(
        lambda x: average_pool(x, 3, 2, pairs, count_include_pad=counted, dilation=dilation),
        theirs,
        [("n", 2, "h", "w")],
        [(2, 2, 7, 8)],
        [(1, 2, 6, 9)],
    )


def test_dilated_averages_along_other_axes() -> None:
    ones = lambda *shape: np.ones(shape)  # noqa: E731
    for rank, kernel in ((1, (3,)), (3, (2, 1, 3))):
        theirs = torch_function(f"conv{rank}d", dilation=2)
        everywhere.check(
            lambda x, kernel=kernel: average_pool(x, kernel, 1, dilation=2),
            lambda x, kernel=kernel, theirs=theirs: theirs(
                x, x.new_tensor(ones(1, 1, *kernel)) / np.prod(kernel)
            ),
            [("n", 1, *"dhw"[:rank])],
            [(2, 1, *(5, 5, 6)[:rank])],
        )


def test_ceil_mode_with_uneven_padding() -> None:
    """Windows that begin behind the elements are left out; what hangs over does not count."""
    x = leaf("x", f32[1, 1, "n"])
    top = max_pool(x, 3, 2, ((2, 0),), ceil_mode=True)
    mean = average_pool(x, 3, 2, ((2, 0),), ceil_mode=True)
    for y, values in ((top, [1, 3, 4]), (mean, [1 / 3, 2, 3.5])):
        data = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
        expected = np.asarray(values, np.float32).reshape(1, 1, 3)
        everywhere.check_values(y, [x], ({"x": data}, expected))


EXTREMES = {i32: (-(2**31), 2**31 - 1), i64: (-(2**63), 2**63 - 1), u32: (0, 2**32 - 1)}


@pytest.mark.parametrize("dtype", EXTREMES, ids=str)
@pytest.mark.parametrize("pairs", [0, 1, ((1, 0), (2, 1))])
@pytest.mark.parametrize("dilation", [1, 2])
def test_integers_are_pooled_exactly(dtype: Any, pairs: Any, dilation: int) -> None:
    low, high = EXTREMES[dtype]
    rng = np.random.default_rng(0)
    x = leaf("x", dtype["n", 2, "h", "w"])
    y = max_pool(x, 3, 2, pairs, dilation)
    even = ((pairs, pairs),) * 2 if isinstance(pairs, int) else pairs
    cases = []
    for shape in ((2, 2, 6, 5), (1, 2, 5, 8), (0, 2, 5, 5)):
        data = rng.choice([low, low + 1, high - 1, high], shape, p=[0.7, 0.2, 0.05, 0.05])
        data = data.astype(dtype.numpy)
        expected = windows(data, 3, 2, even, dilation, low).max((-1, -2))
        cases.append(({"x": data}, expected))
    everywhere.check_values(y, [x], *cases)


def test_integers_in_other_pools() -> None:
    x = leaf("x", i64["n", 1, 6])
    data = np.array([[[2**62, 2**62 + 1, -5, -3, 7, 2**53 + 1]]])
    cases = [
        (max_pool(x, 2, ceil_mode=True), [2**62 + 1, -3, 2**53 + 1]),
        (max_pool(x, 3, 2, "same"), [2**62 + 1, 7, 2**53 + 1]),
        (adaptive_max_pool(x, 4), [2**62 + 1, 2**62 + 1, 7, 2**53 + 1]),
        (adaptive_max_pool(x, 3), [2**62 + 1, -3, 2**53 + 1]),
    ]
    for y, expected in cases:
        everywhere.check_values(y, [x], ({"x": data}, np.array([[expected]])))
    everywhere.check_values(global_max_pool(x), [x], ({"x": data}, np.array([[2**62 + 1]])))


def test_even_pairs_are_plain_padding() -> None:
    x = leaf("x", f32["n", 3, "h", "w"])
    for pool, width in itertools.product((max_pool, average_pool), (0, 1)):
        assert pool(x, 3, 2, ((width, width),) * 2) is pool(x, 3, 2, width)


def test_random_windows_are_their_definition() -> None:
    """Along one axis, every option at once: what lies within counts, and so does the padding asked
    for, but not what hangs over."""
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 150:
        size, kernel, stride, dilation = (int(n) for n in rng.integers(1, [9, 5, 4, 4]))
        first, last = (int(n) for n in rng.integers(0, kernel, 2))
        ceil_mode, counted = (bool(n) for n in rng.integers(0, 2, 2))
        span = dilation * (kernel - 1) + 1
        if size + first + last < span:
            continue
        tried += 1
        starts = list(range(-first, size + last - span + 1, stride))
        after = starts[-1] + stride
        if ceil_mode and after < size and starts[-1] + span < size + last:
            starts.append(after)
        data = rng.normal(size=size)
        greatest, means, places = [], [], []
        for start in starts:
            taps = [start + i * dilation for i in range(kernel)]
            within = [tap for tap in taps if 0 <= tap < size]
            counts = [tap for tap in taps if -first <= tap < size + last] if counted else within
            greatest.append(max((data[tap] for tap in within), default=-np.inf))
            places.append(max(within, key=lambda tap: data[tap], default=None))
            means.append(sum(data[tap] for tap in within) / len(counts) if counts else np.nan)
        given = ((first, last),)
        label = str((size, kernel, stride, given, dilation, ceil_mode, counted))
        x = data.reshape(1, 1, size)
        values, indices = max_pool_with_indices(x, kernel, stride, given, dilation, ceil_mode)
        y = average_pool(x, kernel, stride, given, ceil_mode, counted, dilation)
        found, at, averaged = evaluate([values, indices, y], {})
        np.testing.assert_array_equal(found[0, 0], greatest, label)
        known = [p is not None for p in places]
        assert at[0, 0][known].tolist() == [p for p in places if p is not None], label
        np.testing.assert_allclose(averaged[0, 0], means, rtol=1e-12, atol=1e-14, err_msg=label)


def test_no_channels() -> None:
    """Of what onnxruntime pools, only the batch may be empty."""
    x = leaf("x", f32["n", "c", "m"])
    for shape in ((2, 0, 5), (0, 0, 5), (0, 3, 5)):
        feeds = {"x": np.zeros(shape, np.float32)}
        empty = np.zeros((*shape[:2], 2), np.float32)
        values, indices = max_pool_with_indices(x, 2)
        for y in (values, average_pool(x, 2), max_pool(x, 3, 2)):
            everywhere.check_values(y, [x], (feeds, empty))
            gradient = grad(y.sum(), x)
            everywhere.check_values(gradient, [x], (feeds, feeds["x"]))
        everywhere.check_values(indices, [x], (feeds, empty.astype(np.int64)))
