"""Maximum pooling with indices, and unpooling, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64, model, u32
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import symbol
from nncompile.ir.interpreter import evaluate
from nncompile.ops import max_pool, max_pool_with_indices, max_unpool
from tests import everywhere
from tests.leaves import leaf
from tests.test_pooling import MAXIMA


def torchs(x: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """torch's indices."""
    torch = pytest.importorskip("torch")
    pool = getattr(torch.nn.functional, f"max_pool{x.ndim - 2}d")
    return pool(torch.from_numpy(x), **options, return_indices=True)[1].numpy()  # type: ignore[no-any-return]


def special(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    numbers = [np.nan, np.inf, -np.inf, 0.0, 1.0, -1.0]
    return rng.choice(numbers, shape, p=[0.05, 0.05, 0.6, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("options", MAXIMA)
def test_indices_are_torchs(dtype: Any, options: dict[str, Any]) -> None:
    """Of equal elements, of NaN and of windows of −∞, too."""
    x = leaf("x", dtype["n", 2, "h", "w"])
    values, indices = max_pool_with_indices(x, **options)
    assert values is max_pool(x, **options)
    rng = np.random.default_rng(0)
    cases = []
    for shape in ((2, 2, 6, 6), (1, 2, 5, 11), (0, 2, 6, 6)):
        for data in (rng.integers(-2, 3, shape), special(rng, shape)):
            array = data.astype(dtype.numpy)
            cases.append(({"x": array}, torchs(array, options)))
    everywhere.check_values(indices, [x], *cases)


@pytest.mark.parametrize("rank", [1, 3])
def test_indices_along_other_axes(rank: int) -> None:
    x = leaf("x", f32[("n", 2, *"dhw"[:rank])])
    _, indices = max_pool_with_indices(x, 2, 1)
    data = np.random.default_rng(0).integers(-2, 3, (2, 2, *(4, 3, 5)[:rank])).astype(np.float32)
    everywhere.check_values(
        indices, [x], ({"x": data}, torchs(data, {"kernel_size": 2, "stride": 1}))
    )


@pytest.mark.parametrize("options", MAXIMA)
def test_integers_have_places(options: dict[str, Any]) -> None:
    low = -(2**63)
    x = leaf("x", i64["n", 2, "h", "w"])
    _, indices = max_pool_with_indices(x, **options)
    rng = np.random.default_rng(0)
    cases = []
    for shape in ((2, 2, 6, 6), (1, 2, 5, 11)):
        # The least number, which is that of the padding, and neighbours that no double tells apart.
        data = rng.choice([low, low + 1, 2**62, 2**62 + 1], shape, p=[0.8, 0.1, 0.05, 0.05])
        cases.append(({"x": data}, torchs(data, options)))
    everywhere.check_values(indices, [x], *cases)


@pytest.mark.parametrize("dtype", [f32, u32])
@pytest.mark.parametrize("dilation", [1, 2])
def test_uneven_padding_has_places_within(dtype: Any, dilation: int) -> None:
    """Of windows that are no greater than the padding, too: the first element within."""
    x = leaf("x", dtype[1, 1, "n"])
    _, indices = max_pool_with_indices(x, 3, 2, ((2, 1),), dilation)
    least = -np.inf if dtype is f32 else 0
    cases = []
    for numbers in ([1, 5, 2, 2, 7, 1, 3], [least] * 7, [least] * 5 + [3, 3]):
        places = []
        for start in range(-2, len(numbers) + 1 - 2 * dilation, 2):
            taps = [start + i * dilation for i in range(3)]
            within = [tap for tap in taps if 0 <= tap < len(numbers)]
            places.append(max(within, key=lambda tap: (numbers[tap], -tap)))
        cases.append(({"x": np.array([[numbers]], dtype.numpy)}, np.array([[places]])))
    everywhere.check_values(indices, [x], *cases)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sizes"),
    [
        (2, None, 0, [(2, 2, 6, 4), (1, 2, 2, 8)]),
        (3, 2, 1, [(2, 2, 7, 5)]),
        (2, 3, 0, [(1, 2, 5, 8)]),
    ],
)
def test_unpooling_is_torchs(kernel: int, stride: Any, padding: int, sizes: Any) -> None:
    """Of the elements that were pooled; the gradient goes to those that were put there."""
    functional = pytest.importorskip("torch").nn.functional
    given = kernel, stride, padding
    for shape in sizes:

        def ours(x: Any) -> Any:
            return max_unpool(*max_pool_with_indices(x, *given), *given)

        def theirs(x: Any, shape: Any = shape) -> Any:
            y, at = functional.max_pool2d(x, *given, return_indices=True)
            # Overlapping windows have one place several times: torch's gradient goes to all.
            return functional.max_unpool2d(y, at, *given)

        overlapping = stride is not None and stride < kernel
        everywhere.check(ours, theirs, [("n", 2, "h", "w")], [shape], order=0 if overlapping else 2)


def test_places_that_several_windows_have() -> None:
    """The last one counts, in every backend, and alone has its gradient."""
    x, indices = leaf("x", f64[1, 1, "n"]), leaf("indices", i64[1, 1, "n"])
    y = max_unpool(x, indices, 3, 1)
    feeds = {"x": np.array([[[4.0, 6.0, 1.0]]]), "indices": np.array([[[1, 1, 4]]])}
    everywhere.check_values(y, [x, indices], (feeds, np.array([[[0, 6.0, 0, 0, 1.0]]])))
    gradient = dsl.grad((y * y).sum(), x)
    everywhere.check_values(gradient, [x, indices], (feeds, np.array([[[0, 12.0, 2]]])))


def test_integers_are_put_back() -> None:
    x = leaf("x", i64[1, 1, "n"])
    values, indices = max_pool_with_indices(x, 2)
    data = np.array([[[2**62, 2**62 + 1, -5, -3]]])
    expected = np.array([[[0, 2**62 + 1, 0, -3]]])
    everywhere.check_values(max_unpool(values, indices, 2), [x], ({"x": data}, expected))


@pytest.mark.parametrize("rank", [1, 3])
def test_unpooling_along_other_axes(rank: int) -> None:
    x = leaf("x", f32[("n", 2, *"dhw"[:rank])])
    data = np.random.default_rng(0).uniform(1, 2, (2, 2, *(4, 6, 2)[:rank])).astype(np.float32)
    values, indices = max_pool_with_indices(x, 2)
    y = max_unpool(values, indices, 2)
    upper = evaluate(values, {"x": data})
    for axis in range(2, 2 + rank):
        upper = np.repeat(upper, 2, axis)
    everywhere.check_values(y, [x], ({"x": data}, np.where(data == upper, data, 0)))


def test_sizes_that_only_the_data_tell() -> None:
    h, w = symbol("h"), symbol("w")
    x = leaf("x", f32["n", 1, "h", "w"])
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": "same"}):
        values, indices = max_pool_with_indices(x, **options)
        y = max_unpool(values, indices, **options, output_size=(h, w))
        assert y.type == x.type
        data = np.arange(35, dtype=np.float32).reshape(1, 1, 5, 7) % 11
        for feeds in ({"x": data}, {"x": data[:0]}):
            for result in everywhere.results(y, [x], feeds):
                kept = result != 0
                np.testing.assert_array_equal(result[kept], feeds["x"][kept])
                assert result.shape == feeds["x"].shape and kept.any() == (feeds["x"].size > 0)


def test_layers_pool_and_unpool() -> None:
    @model
    def net(image=f32["n", 3, "2*h", "2*w"]):  # type: ignore[no-untyped-def]
        values, indices = dsl.MaxPool2d(2, return_indices=True)(image)
        return {"y": dsl.MaxUnpool2d(2)(values, indices)}

    x = leaf("image", f32["n", 3, "2*h", "2*w"])
    assert net.graph.outputs["y"] is max_unpool(*max_pool_with_indices(x, 2), 2)
    assert net.graph.outputs["y"].type == x.type


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, i: dsl.MaxUnpool2d(2)(x, i[:, :, 0]), r"MaxUnpool2d needs \[batch, channels\]"),
        (lambda x, i: dsl.MaxUnpool1d(2)(x, i), "MaxUnpool1d needs .* 1 spatial axes"),
        (lambda x, i: dsl.MaxUnpool2d(2)(x, x), "indices that are integers"),
        (lambda x, i: dsl.MaxUnpool2d(2)(x, i, (9,)), "a number for each of 2 axes, got"),
        (lambda x, i: dsl.MaxUnpool2d(2)(x, i, (8, 11)), "a size of 11 is not within the stride 2"),
        (lambda x, i: dsl.MaxUnpool2d(2, padding=2), "a padding of 2 is more than half"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):

        @model
        def net(x=f32["n", 3, 4, 4], i=i64["n", 3, 4, 4]):  # type: ignore[no-untyped-def]
            return {"y": make(x, i)}
