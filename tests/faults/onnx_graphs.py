"""Graphs that ask for too much, or for what there is none of, in the textual syntax of onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.faults.onnx_parts import FLOATS, SIZES, Random
from tests.onnx_files import ints, parsed

HUGE = (2**10, 2**12, 2**32, 2**40, 2**62, 2**63 - 1)
X = "float[batch,4] x"


def simple(lines: str, weights: dict[str, Any] | None = None, **more: Any) -> onnx.ModelProto:
    """x of [batch, 4] and these lines, which make y."""
    return parsed(f"main ({X}) => (float y) {{ {lines} }}", weights or {}, **more)


def huge_results(r: Random) -> onnx.ModelProto:
    """A few bytes that ask for terabytes."""
    size = r.choice(HUGE)
    n = {"n": ints(size), "one": np.int64(1), "zero": np.int64(0), "s": np.int64(size)}
    lines = r.choice((
        "a = ConstantOfShape(n)  y = ReduceSum(a)",
        "a = ConstantOfShape <value = float[1] {2.0}> (n)  y = Add(a, a)",
        "a = ConstantOfShape(n)  b = NonZero(a)  y = Cast <to = 1> (b)",
        "a = Expand(c, n)  y = ReduceSum(a)",
        "a = Tile(c, n)  y = Add(a, a)",
        "a = Tile(c, n)  b = Tile(a, n)  y = ReduceSum(b)",
        "a = Range(zero, s, one)  b = Cast <to = 1> (a)  y = ReduceSum(b)",
        "a = Range(zero, s, one)  y = Cast <to = 1> (a)",
        "a = OneHot(one, s, pair)  y = ReduceSum(a)",
        "a = OneHot <axis = 0> (many, s, pair)  y = Add(a, a)",
        "a = ConstantOfShape(n)  b = Unsqueeze(a, zeros)  y = MatMul(b, b)",
        "a = Pad(c, nn)  y = Add(a, a)",
        "a = Pad <mode = \"reflect\"> (c, nn)  y = Add(a, a)",
        "a = Resize <mode = \"nearest\"> (c, , , n)  y = Add(a, a)",
        "a = Resize <mode = \"linear\"> (x, , , xn)  y = ReduceSum(a)",
        "a = Resize <mode = \"cubic\"> (x, , xs)  y = ReduceSum(a)",
        "a = Expand(x, xn)  y = Softmax(a)",
        "a = ConstantOfShape(n)  b = CumSum(a, zero)  y = ReduceSum(b)",
        "a = SplitToSequence <axis = 1> (x, one)  b = SequenceAt(a, s)  y = Relu(b)",
        "a = ConstantOfShape(n)  k = SplitToSequence(a, one)  "
        "y = ConcatFromSequence <axis = 0> (k)",
        "a = BlackmanWindow(s)  y = ReduceSum(a)",
        "a = HannWindow(s)  y = Add(a, a)",
        "a, b = TopK(x, n)  y = Relu(a)",
        "a = DepthToSpace <blocksize = 2147483648> (image)  y = Relu(a)",
        "a = MelWeightMatrix(s, s, s, f, f)  y = Add(a, a)",
        "a = RandomUniform <shape = [1000000, 1000000, 1000]> ()  y = ReduceSum(a)",
        "a = ConstantOfShape(n)  b = Cast <to = 9> (a)  d = Compress(a, b)  y = ReduceSum(d)",
        "a = EyeLike(square)  b = Tile(a, nm)  y = Relu(b)",
        "a = Gather(c, many)  b = Expand(a, n)  y = ReduceSum(b)",
        "a = DFT(image, s)  y = ReduceSum(a)",
    ))  # fmt: skip
    weights = {
        **n,
        "c": np.ones(1, np.float32),
        "pair": np.float32([0, 1]),
        "many": ints(*range(5)),
        "zeros": ints(0),
        "nn": ints(size, size),
        "nm": ints(size, 1),
        "xn": ints(2, size),
        "xs": np.float32([1, float(size)]),
        "f": np.float32(1),
        "square": np.ones((3, 3), np.float32),
        "image": np.ones((1, 4, 2, 2), np.float32),
    }
    return simple(lines, weights)


def strange_numbers(r: Random) -> onnx.ModelProto:
    """Sizes, steps, scales and axes of NaN, infinity, zero and below."""
    f, i = r.choice(FLOATS), r.choice(SIZES)
    lines = r.choice((
        "y = Resize(x, , scales)",
        "y = Resize <mode = \"linear\"> (x, , scales)",
        "y = Resize <mode = \"cubic\", antialias = 1> (x, , scales)",
        "y = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\"> (x, roi, scales)",
        "y = Range(f, one, f)",
        "y = Range(one, f, one)",
        "a = Range(i, k, i)  y = Cast <to = 1> (a)",
        "a = QuantizeLinear(x, f)  y = DequantizeLinear(a, f)",
        "a = QuantizeLinear(x, zero, z)  y = DequantizeLinear(a, zero, z)",
        "y = Dropout(x, f, t)",
        "a = Cast <to = 7> (fs)  b = ConstantOfShape(a)  y = ReduceSum(b)",
        "a = Cast <to = 7> (fs)  y = Reshape(x, a)",
        "y = Reshape(x, ii)",
        "y = Expand(x, ii)",
        "y = Tile(x, ii)",
        "y = Slice(x, iv, iv, iv, iv)",
        "y = Pad(x, iiii)",
        "y = Pad <mode = \"wrap\"> (x, iiii)",
        "y = Pad <mode = \"reflect\"> (x, iiii)",
        "y = Gather(x, ii)",
        "y = GatherElements(x, im)",
        "y = GatherND(x, ii)",
        "y = ScatterElements(x, im, one_one)",
        "y = OneHot(ii, k, pair)",
        "y = Unsqueeze(x, ii)",
        "y = Squeeze(x, ii)",
        "y = ReduceSum(x, ii)",
        "y = CumSum(x, i)",
        "y = Trilu(x, i)",
        "a, y = Split(x, ii)",
        "a, b = TopK(x, iv)  y = Relu(a)",
        "a = Mod(ii, ii)  b = Div(ii, zeros)  y = Cast <to = 1> (b)",
        "a = Div(ii, minus)  y = Cast <to = 1> (a)",
        "a = Shape(x)  b = Div(a, zeros)  y = Reshape(x, b)",
        "a = Shape(x)  b = Mul(a, ii)  y = Reshape(x, b)",
        "a = Shape(x)  b = Cast <to = 1> (a)  c = Mul(b, fs)  d = Cast <to = 7> (c)  "
        "y = Expand(x, d)",
        "a = Shape(x)  b = Pow(a, ii)  y = Cast <to = 1> (b)",
        "a = Pow(ii, ii)  y = Cast <to = 1> (a)",
        "y = Clip(x, f, zero)",
        "y = Max(x, f)",
        "a = BitShift <direction = \"LEFT\"> (u, u)  y = Cast <to = 1> (a)",
        "a = MatMul(x, w)  y = Div(a, zero)",
        "y = Einsum <equation = \"ij->ijj\"> (x)",
        "y = Einsum <equation = \"i...->\"> (x)",
        "y = Einsum <equation = \"->\"> (x)",
        "y = Einsum <equation = \"ij,jk\"> (x)",
        "y = BatchNormalization(x, w1, w1, w1, w1)",
        "y = LpNormalization <p = 7> (x)",
        "y = Gemm <alpha = 1e38> (x, w)",
        "y, s = Loop(k, , x) <body = b (int64 i, bool c, float h) => (bool d, float o, float o) "
        "{ d = Identity(c)  o = Relu(h) }>",
    ))  # fmt: skip
    weights = {
        "scales": np.float32([1, f]), "roi": np.float32([f, 0, 1, f]), "f": np.float32(f),
        "one": np.float32(1), "i": np.int64(i), "k": np.int64(r.choice(SIZES)),
        "zero": np.float32(0), "z": np.uint8(3), "t": np.asarray(True), "fs": np.float32([f, 1]),
        "ii": ints(i, r.choice(SIZES[:8])), "iv": ints(i), "iiii": ints(i, 0, 1, r.choice(SIZES)),
        "im": ints(i, 0).reshape(2, 1), "one_one": np.ones((2, 1), np.float32),
        "pair": np.float32([0, 1]), "zeros": ints(0, 0), "minus": ints(-1, -1),
        "w": np.ones((4, 4), np.float32), "w1": np.ones(4, np.float32),
        "u": np.array([200, 3], np.uint64),
    }  # fmt: skip
    return simple(lines, weights)


def endless_loops(r: Random) -> onnx.ModelProto:
    """Iterations without an end, or within each other."""
    count = r.choice((0, -1, 63, 64, 65, 1000, 2**31, 2**62, 2**63 - 1))
    body = "body = b (int64 i, bool c, float h) => (bool d, float o{}) {{ {} }}"
    lines = r.choice((
        f"y = Loop(n, , x) <{body.format('', 'd = Identity(c)  o = Relu(h)')}>",
        f"y = Loop(n, t, x) <{body.format('', 'd = Identity(c)  o = Add(h, h)')}>",
        f"y = Loop(, t, x) <{body.format('', 'd = Identity(c)  o = Relu(h)')}>",
        f"y = Loop(, , x) <{body.format('', 'd = Identity(c)  o = Relu(h)')}>",
        f"y = Loop(n, t, x) <{body.format('', 'd = Identity(t)  o = Concat <axis = 0> (h, h)')}>",
        f"a, y = Loop(n, t, x) <{body.format(', float s', 'd = Not(c)  o = Relu(h)  s = Exp(h)')}>",
        f"y = Loop(n, , x) <{body.format('', 'd = Identity(c)  o = Identity(h)')}>",
        "s = Shape(x)  m = ReduceProd <keepdims = 0> (s)  "
        f"y = Loop(m, , x) <{body.format('', 'd = Identity(c)  o = Tanh(h)')}>",
        "s = Shape(x)  m = ReduceProd <keepdims = 0> (s)  "
        f"y = Loop(m, , x) <{body.format('', 'd = Identity(c)  o = Concat <axis=0> (h, h)')}>",
    ))  # fmt: skip
    model = simple(lines, {"n": np.int64(count), "t": np.asarray(True)})
    if r.random() < 0.4:  # 64 iterations of 64 of 64
        for _ in range(r.choice((1, 2, 6))):
            outer = onnx.NodeProto()
            outer.CopyFrom(model.graph.node[-1])
            (formals,) = [a.g for a in outer.attribute if a.name == "body"]
            inner = onnx.NodeProto()
            inner.CopyFrom(outer)
            inner.input[2:] = [formals.input[-1].name]
            inner.output[:] = [formals.output[1].name]
            del formals.node[:]
            formals.node.extend([helper.make_node("Identity", ["c"], ["d"]), inner])
            model.graph.node[-1].CopyFrom(outer)
        for tensor in model.graph.initializer:
            if tensor.name == "n":
                tensor.raw_data = np.int64(60).tobytes()
    return model


def wrong_bodies(r: Random) -> onnx.ModelProto:
    """Graphs within nodes of another signature than the node has."""
    lines = r.choice((
        "y = If(t) <then_branch = a () => () { b = Relu(x) }, else_branch = c () => (float d) "
        "{ d = Relu(x) }>",
        "y = If(t) <then_branch = a (float q) => (float b) { b = Relu(q) }, "
        "else_branch = c () => (float d) { d = Relu(x) }>",
        "f = ReduceMax(x)  g = Cast <to = 9> (f)  y = If(g) <then_branch = a () => (float b) "
        "{ b = Relu(x) }, else_branch = c () => (float d, float e) { d = Relu(x)  e = Exp(x) }>",
        "f = ReduceMax(x)  g = Cast <to = 9> (f)  y = If(g) <then_branch = a () => (float b) "
        "{ b = ReduceSum(x) }, else_branch = c () => (float d) { d = Relu(x) }>",
        "y = If(x) <then_branch = a () => (float b) { b = Relu(x) }, "
        "else_branch = c () => (float d) { d = Exp(x) }>",
        "y = If(empty) <then_branch = a () => (float b) { b = Relu(x) }, "
        "else_branch = c () => (float d) { d = Exp(x) }>",
        "y = Loop(n, t, x) <body = b () => () { }>",
        "y = Loop(n, t, x) <body = b (int64 i) => (bool d) { d = Identity(t) }>",
        "y = Loop(n, t, x) <body = b (int64 i, bool c, float h, float k) => (bool d, float o) "
        "{ d = Identity(c)  o = Add(h, k) }>",
        "y = Loop(n, t, x) <body = b (int64 i, bool c, float h) => (float o, bool d) "
        "{ d = Identity(c)  o = Relu(h) }>",
        "y, z, w = Loop(n, t, x) <body = b (int64 i, bool c, float h) => (bool d, float o) "
        "{ d = Identity(c)  o = Relu(h) }>",
        "y = Loop(n, t, x, x) <body = b (int64 i, bool c, float h) => (bool d, float o) "
        "{ d = Identity(c)  o = Relu(h) }>",
        "y = Loop(x, t, x) <body = b (int64 i, bool c, float h) => (bool d, float o) "
        "{ d = Identity(c)  o = Relu(h) }>",
        "y = Loop(empty, t, x) <body = b (int64 i, bool c, float h) => (bool d, float o) "
        "{ d = Identity(c)  o = Relu(h) }>",
        "y = Loop(n, t, x) <body = b (int64 i, bool c, float h) => (bool d, float o) "
        "{ d = Identity(c)  o = Cast <to = 7> (h) }>",
        "y = Scan <num_scan_inputs = 1, body = b () => () { }> (x)",
        "y = Scan <num_scan_inputs = -1, body = b (float e) => (float o) { o = Relu(e) }> (x)",
        "y = Scan <num_scan_inputs = 2, body = b (float e) => (float o) { o = Relu(e) }> (x)",
        "y = Scan <num_scan_inputs = 1, scan_input_axes = [7], body = b (float e) => (float o) "
        "{ o = Relu(e) }> (x)",
        "y = Scan <num_scan_inputs = 1, scan_output_axes = [-9], body = b (float e) => (float o) "
        "{ o = Relu(e) }> (x)",
        "y = Scan <num_scan_inputs = 1, scan_input_directions = [1, 1, 1], body = b (float e) => "
        "(float o) { o = Relu(e) }> (x)",
        "y, z = Scan <num_scan_inputs = 1, body = b (float s, float e) => (float o) "
        "{ o = Add(s, e) }> (one, x)",
        "y, z = Scan <num_scan_inputs = 1, body = b (float s, float e) => (float o, float o) "
        "{ o = Add(s, e) }> (one, x)",
        "y, z = Scan <num_scan_inputs = 1, body = b (float s, float e) => (int64 o, float p) "
        "{ o = Cast <to = 7> (e)  p = Relu(e) }> (one, x)",
        "a = SequenceEmpty()  b = SequenceMap(a) <body = g (float e) => (float o) { o = Relu(e) }> "
        "y = SequenceAt(b, n)",
        "a = SequenceConstruct(x, x)  b = SequenceMap(a, a) <body = g (float e) => (float o) "
        "{ o = Relu(e) }>  y = SequenceAt(b, n)",
        "y = If(t) <then_branch = a () => (float b) { b = If(t) <then_branch = k () => (float l) "
        "{ l = Relu(b) }, else_branch = c () => (float d) { d = Exp(y) }> }, "
        "else_branch = c () => (float d) { d = Exp(x) }>",
    ))  # fmt: skip
    weights = {"n": np.int64(r.choice((0, 1, 3, 100))), "t": np.asarray(r.random() < 0.5),
               "empty": np.zeros(0, np.bool_), "one": np.ones(4, np.float32)}  # fmt: skip
    return simple(lines, weights)


def other_kinds(r: Random) -> onnx.ModelProto:
    """Strings, trees, sequences, optionals, sparse tensors, and operators that nobody knows."""
    ml = ', "ai.onnx.ml" : 3, "org.nobody" : 1, "com.microsoft" : 1'
    lines = r.choice((
        "a = StringConcat(t, t)  b = StringNormalizer(a)  y = Relu(x)",
        "a = Cast <to = 8> (x)  y = Cast <to = 1> (a)",
        "a = Equal(t, t)  y = Cast <to = 1> (a)",
        "a = TfIdfVectorizer <max_gram_length = 1, max_skip_count = 0, min_gram_length = 1, "
        "mode = \"TF\", ngram_counts = [0], ngram_indexes = [0]> (x)  y = Relu(a)",
        "y = ai.onnx.ml.TreeEnsembleRegressor <n_targets = 1, nodes_modes = [\"LEAF\"], "
        "nodes_values = [0.0]> (x)",
        "a, y = ai.onnx.ml.TreeEnsembleClassifier <classlabels_int64s = [0, 1]> (x)",
        "a, y = ai.onnx.ml.SVMClassifier <classlabels_ints = [0, 1]> (x)",
        "a, b = ai.onnx.ml.LinearClassifier <classlabels_strings = [\"a\", \"b\"], "
        "coefficients = [0.0, 1.0]> (x)  y = Relu(b)",
        "y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0, 3.0], targets = -7> (x)",
        "y = ai.onnx.ml.Scaler <scale = [1.0], offset = [1.0, 2.0]> (x)",
        "a = ai.onnx.ml.LabelEncoder <keys_int64s = [1, 2], values_floats = [1.0]> (x)  "
        "y = Relu(a)",
        "a = ai.onnx.ml.ZipMap <classlabels_int64s = [1, 2]> (x)  y = Relu(a)",
        "y = ai.onnx.ml.Binarizer <threshold = 1.0> (x)",
        "y = org.nobody.Something(x)",
        "a = org.nobody.Something(x)  b = Nothing(a)  c = NonZero(x)  y = Unknown(c)",
        "y = com.microsoft.FusedMatMul(x)",
        "y = com.microsoft.Gelu()",
        "y = com.microsoft.BiasGelu(x, x)",
        "y = com.microsoft.QAttention(x, x, x)",
        "y = org.missing.Relu(x)",
        "a = SequenceConstruct(x, x)  y = Relu(a)",
        "a = SequenceConstruct(x, x)  b = SequenceConstruct(a, x)  y = SequenceAt(b, i)",
        "y = SequenceConstruct(x, x)",
        "y = SequenceEmpty()",
        "a = Optional <type = float> ()  y = OptionalGetElement(a)",
        "y = Optional(x)",
        "a = SequenceEmpty()  y = ConcatFromSequence <axis = 0> (a)",
        "a = SequenceConstruct(x, x)  b = Identity(a)  c = Concat <axis = 0> (b, x)  y = Relu(c)",
        "a = Constant <value_string = \"text\"> ()  y = Relu(x)",
        "a = Constant <value_strings = [\"a\", \"b\"]> ()  y = Relu(x)",
        "y = Constant <value_int = 3, value_float = 2.0> ()",
        "y = Constant()",
        "a = Unique(x)  y = Relu(a)",
        "a = NonMaxSuppression(x, x)  y = Cast <to = 1> (a)",
        "a = ImageDecoder(i)  y = Cast <to = 1> (a)",
        "a = RegexFullMatch <pattern = \"(a+)+$\"> (t)  y = Cast <to = 1> (a)",
        "y = RandomNormalLike <dtype = 99> (x)",
        "y = Multinomial(x)",
        "a = Bernoulli(x)  y = Relu(a)",
    ))  # fmt: skip
    model = simple(lines, {"i": np.int64(1)}, opset=r.choice((17, 20, 22)), more=ml)
    text = helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"\xff"])
    model.graph.initializer.append(text)
    if r.random() < 0.3:
        formal = model.graph.input[0]
        kind = r.randrange(5)
        if kind == 0:
            formal.type.tensor_type.elem_type = TensorProto.STRING
        elif kind == 1:
            formal.type.sequence_type.elem_type.tensor_type.elem_type = 1
        elif kind == 2:
            formal.type.optional_type.elem_type.tensor_type.elem_type = 1
        elif kind == 3:
            formal.type.map_type.key_type = 7
        else:
            sparse = model.graph.sparse_initializer.add()
            sparse.values.name = "x"
            sparse.dims.append(2**40)
    return model
