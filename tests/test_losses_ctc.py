"""The loss of connectionist temporal classification, against torch's and by hand."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from tests.backends import session, valid_model
from tests.gradient_checks import check_gradient
from tests.leaves import leaf

RANDOM = np.random.default_rng(0)


def drawn(count: int, steps: int, letters: int, scale: float = 2.0) -> dict[str, Array]:
    """Some rows shorter than others, with equal labels in a row and padding of −1."""
    label = RANDOM.integers(1, 4, size=(count, letters))
    label[:, 1:2] = label[:, :1]
    label_length = np.arange(count) % (letters + 1)
    label[np.arange(letters) >= label_length[:, None]] = -1
    return {
        "z": RANDOM.normal(scale=scale, size=(count, steps, 5)),
        "label": label,
        "length": np.maximum(steps - np.arange(count), 2 * letters),
        "label_length": label_length,
    }


def built(dtype: Any, **options: Any) -> tuple[Value, list[Value]]:
    leaves = [
        leaf("z", dtype["n", "time", 5]),
        leaf("label", i64["n", "letters"]),
        leaf("length", i64["n"]),
        leaf("label_length", i64["n"]),
    ]
    return dsl.ctc_loss(*leaves, **options), leaves


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_it_is_torchs(reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference here")
    feeds = drawn(6, 12, 4)
    loss, leaves = built(f64, reduction=reduction)
    total = loss.sum() if loss.rank else loss
    found, gradient = evaluate([loss, dsl.grad(total, leaves[0])], feeds)
    z = torch.tensor(feeds["z"], requires_grad=True)
    label = torch.tensor(np.where(feeds["label"] < 0, 1, feeds["label"]))
    expected = torch.nn.functional.ctc_loss(
        z.log_softmax(2).transpose(0, 1), label, torch.tensor(feeds["length"]),
        torch.tensor(feeds["label_length"]), reduction=reduction,
    )  # fmt: skip
    expected.sum().backward()
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-8, atol=1e-12)


def test_it_is_the_sum_over_all_ways() -> None:
    """By hand: every sequence of classes that says the labels when repeats and blanks go."""
    z = RANDOM.normal(size=(1, 5, 3))
    logs = z - np.log(np.exp(z).sum(2, keepdims=True))
    for label in ([2, 2], [1, 2], [1], []):
        ways = [
            sum(logs[0, t, c] for t, c in enumerate(path))
            for path in itertools.product(range(3), repeat=5)
            if [c for c, _ in itertools.groupby(path) if c != 0] == label
        ]
        found = evaluate(dsl.ctc_loss(z, np.array([label], np.int64), reduction="sum"), {})
        assert float(found) == pytest.approx(-math.log(sum(map(math.exp, ways))), rel=1e-12)


def spread(z: Array, kind: str) -> Array:
    """Normal logits made others: of one size and random sign, or far out anywhere."""
    made = {"near": z, "signs": 200 * np.sign(z), "far": 200 * np.tanh(z)}[kind]
    return made.astype(np.float32)


@functools.cache
def with_gradient() -> tuple[Graph, Callable[..., dict[str, Array]]]:
    """The loss and its gradient in float32, and the same in onnxruntime."""
    loss, leaves = built(f32, reduction="sum")
    graph = Graph("ctc", {"loss": loss, "gradient": dsl.grad(loss, leaves[0])}, tuple(leaves))
    return graph, session(valid_model(graph))


@pytest.mark.parametrize("kind", ["near", "signs", "far"])
def test_one_graph_runs_at_several_sizes(kind: str) -> None:
    """In onnxruntime within 10⁻⁵ of double precision, gradients too, far out, in a batch of one and
    over hundreds of steps, where the logarithms are of some 40,000."""
    graph, run = with_gradient()
    for count, steps, letters in ((5, 9, 3), (1, 20, 4), (3, 2, 1), (4, 300, 30)):
        feeds = drawn(count, steps, letters, 1.0)
        feeds["z"] = spread(feeds["z"], kind)
        expected = evaluate(graph, feeds, precision=np.float64)
        found = run(feeds, expected)
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
        exact = expected["gradient"]
        off = found["gradient"] - exact
        assert np.linalg.norm(off) < 2e-6 * np.linalg.norm(exact)
        assert np.abs(off).max() < 1e-5 * np.abs(exact).max()
        # Of each number that is not itself a small difference of others.
        large = np.abs(exact) > 1e-2 * np.abs(exact).max()
        np.testing.assert_allclose(found["gradient"][large], exact[large], rtol=5e-5)


def test_gradients_are_righter_than_torchs() -> None:
    """Whose sums over steps are rounded: by thousandths of the gradients over 300 steps far out."""
    torch = pytest.importorskip("torch", reason="torch is the reference here")
    graph, run = with_gradient()
    feeds = drawn(4, 300, 30, 1.0)
    feeds["z"] = spread(feeds["z"], "far")
    exact = evaluate(graph, feeds, precision=np.float64)["gradient"]
    found = run(feeds, {"loss": (), "gradient": exact.shape})["gradient"]
    z = torch.tensor(feeds["z"], requires_grad=True)
    label = torch.tensor(np.where(feeds["label"] < 0, 1, feeds["label"]))
    torch.nn.functional.ctc_loss(
        z.log_softmax(2).transpose(0, 1), label, torch.tensor(feeds["length"]),
        torch.tensor(feeds["label_length"]), reduction="sum",
    ).backward()  # fmt: skip
    assert np.abs(found - exact).max() < 0.01 * np.abs(z.grad.numpy() - exact).max()


def test_of_a_network_that_is_sure_gradients_are_right() -> None:
    """They are then small differences of numbers near 1. So is a loss near 0: each of 240 frames
    rounds it by less than 6·10⁻⁸."""
    graph, run = with_gradient()
    feeds = drawn(4, 60, 8, 1.0)
    feeds |= {"label": 1 + RANDOM.integers(0, 4, (4, 8)), "length": np.full(4, 60)}
    feeds["label_length"] = np.full(4, 8)
    z = feeds["z"]
    said = np.zeros((4, 60), np.int64)
    said[:, 5:45:5] = feeds["label"]
    np.put_along_axis(z, said[:, :, None], z.max() + 8, 2)
    feeds["z"] = z.astype(np.float32)
    expected = evaluate(graph, feeds, precision=np.float64)
    found = run(feeds, expected)
    assert 1e-3 < expected["loss"] < 0.1
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0, atol=1e-5)
    off = np.linalg.norm(found["gradient"] - expected["gradient"])
    assert off < 2e-6 * np.linalg.norm(expected["gradient"])


def test_classes_that_never_come() -> None:
    """Their logits are −∞: a label that has one is impossible, the others are as without it."""
    z = RANDOM.normal(size=(2, 6, 4))
    fewer, label = z[:, :, :3].copy(), np.array([[1, 2], [2, 2]])
    z[:, :, 3] = -np.inf
    x, y = leaf("x", f64[2, 6, 4]), leaf("y", f64[2, 6, 3])
    one, two = dsl.ctc_loss(x, label), dsl.ctc_loss(y, label)
    values = [one, two, dsl.grad(one, x), dsl.grad(two, y)]
    found, expected, gradient, expected_gradient = evaluate(values, {"x": z, "y": fewer})
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[:, :, :3], expected_gradient, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(gradient[:, :, 3], 0)
    unsaid = dsl.ctc_loss(x, np.array([[1, 3], [1, 2]]), reduction="none")
    found, gradient = evaluate([unsaid, dsl.grad(unsaid.sum(), x)], {"x": z})
    assert found[0] == np.inf and 0 < found[1] < np.inf
    assert np.isfinite(gradient).all() and not gradient[0].any() and gradient[1].any()


def test_labels_that_do_not_fit_in_time() -> None:
    z, label = leaf("z", f64[2, 3, 4]), np.array([[1, 1, 2], [1, 2, 3]])
    feeds = {"z": RANDOM.normal(size=(2, 3, 4))}
    for zero, expected in ((False, math.inf), (True, 0.0)):
        losses = dsl.ctc_loss(z, label, zero_infinity=zero, reduction="none")
        found, gradient = evaluate([losses, dsl.grad(losses.sum(), z)], feeds)
        assert found[0] == expected
        assert 0 < found[1] < math.inf
        np.testing.assert_array_equal(gradient[0], np.zeros((3, 4)))
        assert np.abs(gradient[1]).max() > 0


def test_another_blank_and_a_mask() -> None:
    z, label = RANDOM.normal(size=(3, 6, 4)), np.array([[0, 1], [2, 2], [1, 0]])
    swapped = z[:, :, [3, 0, 1, 2]]
    one = evaluate(dsl.ctc_loss(z, label, blank=3, mask=np.array([True, False, True])), {})
    two = evaluate(dsl.ctc_loss(swapped[[0, 2]], label[[0, 2]] + 1), {})
    np.testing.assert_allclose(one, two, rtol=1e-12)
    assert evaluate(dsl.ctc_loss(z, label, mask=np.zeros(3, bool)), {}) == 0


def test_second_gradients_are_differences() -> None:
    label = np.array([[1, 1], [2, 1]])
    check_gradient(lambda z: dsl.ctc_loss(z, label), RANDOM.normal(size=(2, 5, 3)))


def test_the_graph_does_not_grow_with_time() -> None:
    def nodes(steps: int) -> int:
        z = leaf("z", f32[2, steps, 4])
        loss = dsl.ctc_loss(z, np.array([[1, 2], [3, 1]]))
        return len(Graph("ctc", {"gradient": dsl.grad(loss, z)}).nodes)

    assert nodes(8) == nodes(80)


Z, LABEL = f32["n", "t", 5], i64["n", "s"]


@pytest.mark.parametrize(
    ("use", "types", "error", "message"),
    [
        (dsl.ctc_loss, (Z, f32["n", "s"]), DTypeError, "labels class indices"),
        (dsl.ctc_loss, (Z, i64["n"]), ShapeError, "labels \\[batch, length\\]"),
        (dsl.ctc_loss, (Z, i64["m", "s"]), ShapeError, "different batch sizes"),
        (dsl.ctc_loss, (Z, LABEL, i64["t"]), ShapeError, "length needs one number per row"),
        (dsl.ctc_loss, (Z, LABEL, f32["n"]), DTypeError, "length must be integers"),
        (lambda z, c: dsl.ctc_loss(z, c, blank=5), (Z, LABEL), ModelError, "one of 5 classes"),
    ],
)
def test_what_it_refuses(
    use: Any, types: tuple[Type, ...], error: type[CompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(*(leaf(f"x{i}", t) for i, t in enumerate(types)))
