"""What a model, a recipe and a training say of themselves: tables, one line, figures."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from dsl import (
    LSTM,
    BatchNorm,
    Conv2d,
    Dense,
    Layer,
    adam,
    cosine,
    cross_entropy,
    f32,
    i64,
    model,
    parameter,
    relu,
    swish,
    training,
)
from nncompile import History, ModelError, ShapeError
from nncompile.ir.dims import substitute, symbols
from nncompile.ir.graph import Graph, macs_of
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Type
from nncompile.ops.contraction.attention import Attention
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv, ConvTranspose, ConvWeightGradient
from nncompile.program.outline import Block, outline
from nncompile.train.figures import duration
from tests.leaves import leaf
from tests.small_models import perceptron, trainer

PRODUCTS = (MatMul, Gemm, Einsum, Conv, ConvTranspose, ConvWeightGradient)


class Residual(Layer):
    """x plus what two layers make of it."""

    def __call__(self, x: Any) -> Any:
        width = x.shape[-1]
        return x + (x >> Dense(width, swish) >> Dense(width))


@model
def net(image: Any = f32["batch", 1, "height", "width"], label: Any = i64["batch"]) -> Any:
    maps = image >> Conv2d(4, 3, padding=1, name="stem") >> BatchNorm() >> relu
    features = maps.mean((2, 3))
    shared = Residual(name="twice")
    hidden = features >> shared >> relu >> shared
    logits = hidden >> Dense(10, name="head")
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each line of a summary by the first."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
    return {line[0]: line[1:] for line in lines}


def test_a_summary_lists_layers_with_shapes_parameters_and_costs() -> None:
    text = net.summary(height=8, width=6)
    table = rows(text)
    assert table["stem (Conv2d)"] == ["f32[batch, 4, 8, 6]", "40", "1,728"]  # 8·6·4·9
    assert table["batch_norm (BatchNorm)"] == ["f32[batch, 4, 8, 6]", "16"]
    assert table["head (Dense)"] == ["f32[batch, 10]", "50", "40"]
    assert table["dense (Dense)"] == ["f32[batch, 4]", "shared", "16"]  # of the second call
    assert text.count("twice (Residual)") == 2 and text.count("  dense_1 (Dense)") == 2
    assert table["cross_entropy"] == ["f32[]"]
    assert table["parameters"] == ["138 in 10 tensors, 552 bytes"]
    assert table["state"] == ["8 in 2 tensors, 32 bytes"]
    assert table["MACs"] == ["1,832 for each example"]
    assert repr(text) == str(text)


def test_a_cost_may_depend_on_sizes_that_the_data_tell() -> None:
    table = rows(net.summary())
    assert table["stem (Conv2d)"][-1] == "36*height*width"
    assert "summary(height=…, width=…) counts them" in net.summary()
    with pytest.raises(ShapeError, match=r"no input of model net has a size 'hight'") as error:
        net.summary(hight=8)
    assert "'height'" in str(error.value)
    with pytest.raises(ModelError, match="depth"):
        net.summary(depth=0)
    assert "  dense" not in net.summary(depth=1)


def test_a_loop_costs_as_often_as_it_runs() -> None:
    @model
    def loop(x: Any = f32["batch", 7, 3]) -> Any:
        return x >> LSTM(5)

    assert rows(loop.summary())["MACs"] == [f"{7 * 4 * 5 * (3 + 5):,} for each example"]


def test_the_summary_of_a_model_without_layers_names_functions_and_formulas() -> None:
    @model
    def line(x: Any = f32["batch", 3]) -> Any:
        return (x @ parameter("weight", (3,)) + parameter("bias")) * 2

    table = rows(line.summary())
    assert table["matmul"] == ["f32[batch]", "3", "3"]
    assert [cells[1] for name, cells in table.items() if "1" in cells[1:2]] == ["1"]
    assert rows(perceptron().summary())["parameters"] == ["56 in 3 tensors, 224 bytes"]


def test_a_summary_in_a_notebook_is_a_table_of_which_names_are_text() -> None:
    @model(name="<script>alert(1)</script>")
    def odd(x: Any = f32["batch", 3]) -> Any:
        return x >> Dense(2)

    html = odd.summary()._repr_html_()
    assert "<table>" in html and "<script" not in html and "&lt;script&gt;" in html
    assert odd._repr_html_() == html


def bound(sample: Sample) -> list[Type]:
    """The types of the factors, with a number for each name of a size."""
    types = sample.types[:2]
    names = symbols(d for t in types for d in t.shape)
    sizes = {s: 2 + i for i, s in enumerate(sorted(names, key=str))}
    return [t.with_shape(tuple(substitute(d, sizes) for d in t.shape)) for t in types]


@pytest.mark.parametrize("op_type", PRODUCTS, ids=lambda op: op.__name__)
def test_the_sum_over_results_of_ones_counts_the_products(op_type: type[Op]) -> None:
    """What multiplies ones and adds up gives the number of its products; a convolution counts those
    in its padding too, where there is nothing to add."""
    exact = 0
    for sample in op_type.samples():
        types = bound(sample)
        names = symbols(d for t in sample.types[:2] for d in t.shape)
        op = sample.op.at({s: 2 + i for i, s in enumerate(sorted(names, key=str))})
        result = op.infer(*types)
        found = op.numpy(*(np.ones(t.shape, t.dtype.numpy) for t in types))  # type: ignore[arg-type]  # bound
        macs = op.macs(result, *types)
        if getattr(op, "alpha", 1) == 1 and not any(getattr(op, "pads", ())) and macs:
            assert found.sum() == macs, sample
            exact += 1
        elif macs and not hasattr(op, "alpha"):
            assert found.sum() < macs, sample
    assert exact


def test_attention_costs_what_it_is_made_of() -> None:
    q, k, v = (leaf(name, f32["n", 2, size, 8]) for name, size in zip("qkv", "tss", strict=True))
    written = Graph("written", dict(enumerate(Attention().composed(q, k, v))))  # type: ignore[arg-type]  # one output
    assert macs_of(apply(Attention(), q, k, v)) == written.macs != 0


def test_two_calls_of_a_layer_are_two_blocks_in_order() -> None:
    blocks = outline(net.graph, net.layers)
    names = [block.name for block in blocks]
    body = ["twice", "relu", "twice"]
    assert names == ["stem", "batch_norm", "relu", "mean", *body, "head", "cross_entropy"]
    shown: set[Value] = set()
    for block in blocks:  # each after what it needs, and every node in one of them
        inner = [v for b in block.blocks for v in b.values]
        assert not inner or set(inner) == set(block.values)
        assert not shown & set(block.values)
        shown |= set(block.values)
        assert all(a in shown for v in block.values for a in v.args if a in all_values(blocks))
    assert blocks[4].shares is False and blocks[6].shares is True


def all_values(blocks: list[Block]) -> set[Value]:
    return {v for block in blocks for v in block.values}


def test_what_needs_each_other_is_taken_apart() -> None:
    """A layer that goes out to another and comes back has no place as one block."""
    inner = Dense(3, name="inner")

    class Outer(Layer):
        def __call__(self, x: Any, y: Any = None) -> Any:
            first = x * self.parameter("a", init=2.0)
            return first if y is None else y * self.parameter("b", init=2.0) + first

    outer = Outer(name="outer")

    @model
    def circle(x: Any = f32["batch", 3]) -> Any:
        return outer(x, outer(x) >> inner)

    blocks = outline(circle.graph, circle.layers)
    names = [block.name for block in blocks]
    assert names.index("inner") > names.index("outer")
    assert "outer" in names[names.index("inner") :]


def test_a_history_tells_its_best_epochs() -> None:
    history = History(
        [
            {"loss": 3.0, "val_accuracy": 0.5, "confusion": np.eye(2)},  # type: ignore[dict-item]  # a table
            {"loss": math.nan, "val_accuracy": 0.75},
            {"loss": 1.0, "val_accuracy": 0.75},
        ]
    )
    assert history.best == {"loss": (3, 1.0), "val_accuracy": (2, 0.75)}
    assert history.best["loss"].epoch == 3 and history.names == ["loss", "val_accuracy"]
    for wrong in (lambda: history["los"], lambda: history.best["los"]):
        with pytest.raises(ModelError, match=r"the history has no metric 'los'(.|\n)*'loss'"):
            wrong()
    assert History()["loss"] == []
    with pytest.raises(
        AttributeError, match=r'a history has no \'history\'(.|\n)*history\["loss"\]'
    ):
        history.history  # noqa: B018
    assert repr(history) == "<History of 3 epochs: loss 1.0000  val_accuracy 0.7500>"
    assert repr(History()) == "<History of 0 epochs>" and History().best == {}
    html = history._repr_html_()
    assert "1.0000 (3)" in html and html.count("<tr>") == 5


def test_a_history_is_a_frame_and_a_figure() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    history = History([{"loss": 2.0}, {"loss": 1.0, "val_loss": 3.0}])
    frame = history.to_pandas()
    expected = pandas.DataFrame(
        {"loss": [2.0, 1.0], "val_loss": [math.nan, 3.0]},
        index=pandas.RangeIndex(1, 3, name="epoch"),
    )
    pandas.testing.assert_frame_equal(frame, expected)
    (axes,) = history.plot().axes
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss"]
    assert list(axes.lines[1].get_xdata()) == [2]
    with pytest.raises(ModelError, match="no metric 'los'"):
        history.plot("los")


def test_representations_are_one_short_line() -> None:
    made = trainer(epochs=3)
    lines = {
        repr(made.model): "<Model perceptron(x: f32[batch, 4], target: f32[batch, 2]) → "
        "y, loss, bias; 56 parameters>",
        repr(made.recipe): "<Recipe of perceptron: minimize loss with adam(lr=0.01), batches of "
        "16, 3 epochs>",
        repr(made): "<Trainer of perceptron at step 0, epoch 0, on cpu>",
    }
    for line, expected in lines.items():
        assert line == expected
    rate = training(perceptron(), optimizer=adam(cosine(1e-3, steps=10)))
    assert "adam(lr=<schedule cosine>)" in repr(rate)


def test_durations() -> None:
    found = [duration(x) for x in (0.04, 9.97, 59, 60, 185.2, 3765)]
    assert found == ["0.0 s", "10 s", "59 s", "1:00", "3:05", "1:02:45"]
