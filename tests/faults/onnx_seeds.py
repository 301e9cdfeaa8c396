"""Small valid ONNX files of every kind of network, of which wrong ones are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_files import convolutional, ints, parsed, tied_language_model, weight


def perceptron() -> onnx.ModelProto:
    return parsed(
        """main (float[batch,6] x) => (float[batch,3] y, int64[batch] class) {
            a = Gemm <transB = 1, alpha = 0.5> (x, first_weight, first_bias)
            b = Relu(a)
            c = MatMul(b, second_weight)
            d = Add(c, second_bias)
            y = Softmax <axis = -1> (d)
            class = ArgMax <axis = 1, keepdims = 0> (y)
        }""",
        {"first_weight": weight(5, 6), "first_bias": weight(5),
         "second_weight": weight(5, 3), "second_bias": weight(3)},
    )  # fmt: skip


def recurrent() -> onnx.ModelProto:
    return parsed(
        """main (float[time,batch,4] x) => (float[time,1,batch,5] y, float[1,batch,5] g) {
            y, h, c = LSTM <hidden_size = 5> (x, lstm_w, lstm_r, lstm_b)
            s = Squeeze(y, axis)
            t, g = GRU <hidden_size = 5, linear_before_reset = 1> (s, gru_w, gru_r)
        }""",
        {"lstm_w": weight(1, 20, 4), "lstm_r": weight(1, 20, 5), "lstm_b": weight(1, 40),
         "gru_w": weight(1, 15, 5), "gru_r": weight(1, 15, 5), "axis": ints(1)},
    )  # fmt: skip


def attention() -> onnx.ModelProto:
    """With a mask that is made of sizes, and normalization by layers."""
    return parsed(
        """main (int64[batch,seq] ids) => (float[batch,seq,8] y) {
            e = Gather(table, ids)
            shape = Shape(ids)
            last = Gather <axis = 0> (shape, one)
            span = Range(zero, last, one)
            rows = Unsqueeze(span, axis_one)
            mask = LessOrEqual(span, rows)
            q = MatMul(e, q_weight)
            k = MatMul(e, k_weight)
            turned = Transpose <perm = [0, 2, 1]> (k)
            scores = MatMul(q, turned)
            seen = Where(mask, scores, low)
            p = Softmax <axis = -1> (seen)
            m = MatMul(p, e)
            z = Add(m, e)
            y = LayerNormalization <axis = -1> (z, norm_weight, norm_bias)
        }""",
        {"table": weight(11, 8), "q_weight": weight(8, 8), "k_weight": weight(8, 8, seed=2),
         "norm_weight": 1 + weight(8), "norm_bias": weight(8), "one": np.int64(1),
         "zero": np.int64(0), "axis_one": ints(1), "low": np.float32(-1e4)},
    )  # fmt: skip


def quantized() -> onnx.ModelProto:
    q = np.random.default_rng(0).integers(-100, 100, (6, 4)).astype(np.int8)
    return parsed(
        """main (float[batch,6] x) => (float[batch,4] y) {
            a = QuantizeLinear(x, scale, zero)
            b = DequantizeLinear(a, scale, zero)
            w = DequantizeLinear <axis = 1> (w_quantized, w_scale, w_zero)
            c = MatMul(b, w)
            d = DequantizeLinear(bias_quantized, bias_scale)
            e = Add(c, d)
            f, s, z = DynamicQuantizeLinear(e)
            y = DequantizeLinear(f, s, z)
        }""",
        {"scale": np.float32(0.05), "zero": np.uint8(128), "w_quantized": q,
         "w_scale": np.full(4, 0.01, np.float32), "w_zero": np.zeros(4, np.int8),
         "bias_quantized": np.arange(4, dtype=np.int32), "bias_scale": np.float32(0.1)},
    )  # fmt: skip


def branched() -> onnx.ModelProto:
    """A condition that data decide, and one that sizes do, in graphs with initializers."""
    model = parsed(
        """main (float[batch,4] x, bool flag) => (float[batch,4] y, float[batch,4] z) {
            y = If (flag) <
                then_branch = g1 () => (float[batch,4] u) { u = Mul(x, w) },
                else_branch = g2 () => (float[batch,4] v) { a = Add(x, w)  v = Tanh(a) }
            >
            shape = Shape(x)
            columns = Gather(shape, one)
            wide = Greater(columns, one)
            z = If (wide) <
                then_branch = g3 () => (float[batch,4] s) { s = Sigmoid(y) },
                else_branch = g4 () => (float[batch,4] t) { t = Identity(x) }
            >
        }""",
        {"w": weight(4), "one": np.int64(1)},
    )
    inner = model.graph.node[0].attribute[0].g
    inner.initializer.append(numpy_helper.from_array(weight(4, seed=3), "inner"))
    inner.node[0].input[1] = "inner"
    return model


def looped() -> onnx.ModelProto:
    return parsed(
        """main (float[batch,3] x) => (float[batch,3] y, float[count,batch,3] rows) {
            y, rows = Loop (count, go, x) <
                body = body (int64 i, bool c, float[batch,3] h)
                    => (bool d, float[batch,3] k, float[batch,3] row) {
                    d = Identity(c)
                    f = CastLike(i, h)
                    g = Add(h, f)
                    k = Mul(g, w)
                    row = Relu(k)
                }
            >
        }""",
        {"count": np.int64(4), "go": np.asarray(True), "w": weight(3)},
    )


def scanned() -> onnx.ModelProto:
    return parsed(
        """main (float[time,3] x, float[3] h) => (float[3] last, float[time,3] all) {
            last, all = Scan <num_scan_inputs = 1,
                body = step (float[3] s, float[3] e) => (float[3] t, float[3] o) {
                    a = Add(s, e)
                    t = Tanh(a)
                    o = Mul(t, w)
                }
            > (h, x)
        }""",
        {"w": weight(3)},
    )


def with_functions() -> onnx.ModelProto:
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        main (float[batch,4] x) => (float[batch,4] y) {
            h = own.block <alpha = 0.3> (x, w)
            y = own.twice(h)
        }
        <domain: "own", opset_import: ["" : 17]>
        block <alpha> (x, w) => (y) {
            a = MatMul(x, w)
            y = LeakyRelu <alpha: float = @alpha> (a)
        }
        <domain: "own", opset_import: ["" : 17, "own" : 1]>
        twice (x) => (y) { a = own.once(x)  y = own.once(a) }
        <domain: "own", opset_import: ["" : 17]>
        once (x) => (y) { a = Sigmoid(x)  y = Mul(a, x) }"""
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(weight(4, 4), "w"))
    return model


def images() -> onnx.ModelProto:
    return parsed(
        """main (float[batch,2,6,6] x) => (float[batch,3,12,12] y, float[batch,2,3,3] pooled) {
            pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            mean = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            p = Pad(mean, pads)
            c = ConvTranspose <strides = [2, 2], output_padding = [1, 1],
                               pads = [1, 1, 1, 1]> (pooled, up_weight)
            n = InstanceNormalization(c, scale, shift)
            y = Resize <mode = "linear"> (n, , scales)
        }""",
        {"up_weight": weight(2, 3, 3, 3), "pads": ints(0, 0, 1, 1, 0, 0, 0, 0),
         "scale": 1 + weight(3), "shift": weight(3),
         "scales": np.array([1, 1, 2, 2], np.float32)},
    )  # fmt: skip


def arranged() -> onnx.ModelProto:
    """Ops on indices, order and parts."""
    return parsed(
        """main (float[batch,8] x, int64[batch] place) => (float[batch,6] y, int64[batch,2] best) {
            a, b = Split <axis = 1> (x, parts)
            c = Concat <axis = 1> (b, a)
            d = Slice(c, starts, ends, axes, steps)
            v, best = TopK <axis = 1> (d, k)
            o = OneHot <axis = -1> (place, depth, values)
            m = ReduceMean <axes = [1], keepdims = 1> (c)
            e = Expand(m, target)
            f = Concat <axis = 1> (v, o)
            g = CumSum(f, last)
            n = ConstantOfShape <value = float[1] {0.5}> (target)
            h = Add(e, n)
            i = ReduceSum <keepdims = 1> (h, last_axes)
            y = Add(g, i)
        }""",
        {"parts": ints(3, 5), "starts": ints(-1), "ends": ints(-9), "axes": ints(1),
         "steps": ints(-2), "k": ints(2), "depth": np.int64(4), "last": np.int64(1),
         "values": np.array([0, 1], np.float32), "target": ints(1, 5), "last_axes": ints(-1)},
    )  # fmt: skip


def classic() -> onnx.ModelProto:
    """As exporters of scikit-learn write it."""
    node = helper.make_node
    ml = "ai.onnx.ml"
    nodes = [
        node("Scaler", ["x"], ["a"], domain=ml, offset=[0.5] * 3, scale=[2.0] * 3),
        node("LinearClassifier", ["a"], ["class", "b"], domain=ml, post_transform="SOFTMAX",
             coefficients=[0.1 * i for i in range(9)], intercepts=[0.0, 0.1, 0.2],
             classlabels_ints=[4, 5, 6]),
        node("Normalizer", ["b"], ["y"], domain=ml, norm="L1"),
    ]  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "main", [info("x", TensorProto.FLOAT, [None, 3])],
        [info("class", TensorProto.INT64, [None]), info("y", TensorProto.FLOAT, [None, 3])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid(ml, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def sequences() -> onnx.ModelProto:
    return parsed(
        """main (float[2,6] x, float[2,3] z) => (float[2,9] y) {
            s = SplitToSequence <axis = 1> (x, three)
            t = SequenceInsert(s, z)
            n = SequenceAt(t, one)
            o = Optional(n)
            p = OptionalGetElement(o)
            r = SequenceConstruct(p, z, z)
            y = ConcatFromSequence <axis = 1> (r)
        }""",
        {"three": np.int64(3), "one": np.int64(1)},
    )


def of_file(write: Callable[[Path], Path]) -> Callable[[Path], onnx.ModelProto]:
    return lambda directory: onnx.load(write(directory / "seed.onnx"))


def of_old(directory: Path) -> onnx.ModelProto:
    """A file of opset 8, whose weights are also inputs."""
    model = perceptron()
    model.opset_import[0].version = 8
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del model.graph.node[4].attribute[:]
    return model


SEEDS: dict[str, Callable[[Path], onnx.ModelProto]] = {
    "perceptron": lambda _: perceptron(),
    "convolutional": of_file(convolutional),
    "language model": of_file(tied_language_model),
    "recurrent": lambda _: recurrent(),
    "attention": lambda _: attention(),
    "quantized": lambda _: quantized(),
    "branched": lambda _: branched(),
    "looped": lambda _: looped(),
    "scanned": lambda _: scanned(),
    "functions": lambda _: with_functions(),
    "images": lambda _: images(),
    "arranged": lambda _: arranged(),
    "classic": lambda _: classic(),
    "sequences": lambda _: sequences(),
    "old": of_old,
}
