"""Rows: neurons, activations, layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dsl
from dsl import f32, i64
from tests.coverage.building import of, of_image, of_sequence
from tests.coverage.checks import System

NEURONS, ACTIVATIONS = "Neurons", "Activations"
LAYERS, NORMS, SEQUENCES = "Layers", "Normalization", "Sequences and attention"


def _neuron(name: str, build: Any, example: str, **options: Any) -> System:
    return System(name, NEURONS, build, example=f"examples/{example}.py", **options)


NEURON_ROWS = (
    _neuron("perceptron with step activation", of(lambda x: dsl.step(x >> dsl.Dense(1))),
            "perceptron", order=0),
    _neuron("logistic regression", of(lambda x: dsl.sigmoid(x >> dsl.Dense(1))),
            "logistic_regression"),
    _neuron("linear regression", of(lambda x: x >> dsl.Dense(1)), "linear_regression"),
    _neuron("multi-layer perceptron; XOR",
            of(lambda x: x >> dsl.Dense(5, dsl.tanh) >> dsl.Dense(1)), "xor"),
    _neuron("universal approximation by one hidden layer",
            of(lambda x: x >> dsl.Dense(8, dsl.tanh) >> dsl.Dense(1), f32["batch", 1]),
            "universal_approximation"),
)  # fmt: skip


def _activation(name: str, function: Callable[[Any], Any] | None = None, **o: Any) -> System:
    function = function or getattr(dsl, name)
    test = {"agrees": "torch", "test": "tests/test_activations_table.py"}
    return System(name, ACTIVATIONS, of(function), **{**test, **o})


_PLAIN = (
    *("linear", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "celu", "gelu"),
    *("gelu_tanh", "silu", "mish", "softplus", "softsign", "hard_sigmoid", "hard_swish"),
    *("hard_tanh", "relu6", "softmax", "log_softmax", "log_sigmoid", "tanh_shrink", "soft_shrink"),
    *("hard_shrink", "threshold", "squareplus", "gaussian", "glu"),
)
ACTIVATION_ROWS = (
    _activation("step", order=0, agrees=""),
    *map(_activation, _PLAIN),
    _activation("PReLU", lambda x: x >> dsl.PReLU(), test="tests/test_activations_table.py"),
    _activation("SwiGLU", dsl.swiglu),
    _activation("GEGLU", dsl.geglu),
    _activation("ReGLU", dsl.reglu),
    _activation("Maxout", lambda x: dsl.maxout(x >> dsl.Dense(6), pieces=2)),
    _activation("an activation of one's own", dsl.formula(lambda x: x * dsl.sigmoid(1.7 * x)),
                agrees="finite differences", test="tests/test_formula_derivatives.py"),
)  # fmt: skip


def _layer(name: str, build: Any, family: str, **options: Any) -> System:
    agrees = {"agrees": "torch", "test": f"tests/test_{family}.py"}
    return System(name, options.pop("section", LAYERS), build, **{**agrees, **options})


def _conv(name: str, layer: Any, axes: int = 2, **options: Any) -> System:
    return _layer(name, of_image(lambda x: x >> layer, axes=axes), "convolution_layers", **options)


def _pool(name: str, layer: Any, axes: int = 2, family: str = "pooling") -> System:
    return _layer(name, of_image(lambda x: x >> layer, axes=axes), family)


def _prepared(layer: Any, **options: Any) -> System:
    """A layer that is adapted to a table."""
    table = np.random.default_rng(0).normal(size=(50, 4))
    build = of(lambda x: x >> layer().adapt(table))
    return _layer(layer.__name__, build, "preprocessing", agrees="scikit-learn", **options)


LAYER_ROWS = (
    _layer("Dense", of(lambda x: x >> dsl.Dense(3)), "train", example="examples/digits.py"),
    _layer("Bilinear", of(lambda x, y: dsl.Bilinear(3)(x, y), f32["batch", 4], f32["batch", 2]),
           "embedding_bag"),
    _conv("Conv1d, causal and dilated", dsl.Conv1d(3, 2, padding="causal", dilation=2), axes=1),
    _conv("Conv2d", dsl.Conv2d(3, 3, padding="same"), example="examples/digits_cnn.py"),
    _conv("Conv2d, stride and padding", dsl.Conv2d(3, 3, stride=2, padding=1)),
    _conv("Conv2d, groups", dsl.Conv2d(4, 3, groups=2)),
    _conv("Conv2d, circular", dsl.Conv2d(3, 3, padding=1, padding_mode="circular")),
    _conv("Conv2d, cropped", dsl.Conv2d(3, 2, padding=((-1, 1), (0, -1)))),
    _conv("DepthwiseConv2d", dsl.DepthwiseConv2d(3)),
    _conv("SeparableConv2d", dsl.SeparableConv2d(3, 3)),
    _conv("Conv3d", dsl.Conv3d(2, 2), axes=3),
    _conv("ConvTranspose1d", dsl.ConvTranspose1d(2, 3, stride=2), axes=1),
    _conv("ConvTranspose2d", dsl.ConvTranspose2d(2, 3, stride=2)),
    _conv("ConvTranspose3d", dsl.ConvTranspose3d(2, 2, stride=2), axes=3),
    _pool("MaxPool1d", dsl.MaxPool1d(2), 1),
    _pool("MaxPool2d", dsl.MaxPool2d(2)),
    _pool("MaxPool2d, overlapping", dsl.MaxPool2d(3, stride=2, padding=1)),
    _pool("MaxPool3d", dsl.MaxPool3d(2), 3),
    _layer("MaxUnpool2d", of_image(lambda x: dsl.MaxUnpool2d(2)(
           *dsl.MaxPool2d(2, return_indices=True)(x), x.shape[2:])), "unpooling"),
    _pool("LPPool2d", dsl.LPPool2d(2, 2), family="local_pooling"),
    _pool("AveragePool1d", dsl.AveragePool1d(2), 1),
    _pool("AveragePool2d", dsl.AveragePool2d(3, stride=2, padding=1)),
    _pool("AveragePool3d", dsl.AveragePool3d(2), 3),
    _pool("AveragePool2d, dilated", dsl.AveragePool2d(2, padding=((1, 0), (0, 1)), dilation=2),
          family="pooling_windows"),
    _pool("GlobalAveragePool", dsl.GlobalAveragePool()),
    _pool("GlobalMaxPool", dsl.GlobalMaxPool()),
    _pool("AdaptiveAveragePool2d", dsl.AdaptiveAveragePool2d(2)),
    _pool("AdaptiveMaxPool2d", dsl.AdaptiveMaxPool2d(2)),
    _pool("Upsample, nearest", dsl.Upsample(2), family="resize"),
    _pool("Upsample, bilinear", dsl.Upsample(2, mode="bilinear"), family="resize"),
    _pool("Upsample, corners aligned",
          dsl.Upsample(size=(5, 3), mode="bilinear", align_corners=True), family="resize"),
    _pool("Upsample, bicubic", dsl.Upsample(1.5, mode="bicubic"), family="resize"),
    _pool("Upsample, antialiased", dsl.Upsample(0.5, mode="bicubic", antialias=True),
          family="resize"),
    _layer("grid_sample", of(dsl.grid_sample, f32["batch", 2, "height", "width"],
           f32["batch", "places", 2]), "grid_sample"),
    _layer("grid_sample, bicubic, of an affine grid",
           of(lambda x, theta: dsl.grid_sample(x, dsl.affine_grid(theta, x.shape), "bicubic",
              "border"), f32["batch", 2, "height", "width"], f32["batch", 2, 3]), "grid_sample"),
    _pool("Unfold", dsl.Unfold(3, padding=1), family="patches"),
    _pool("Fold", dsl.Sequential(dsl.Unfold(2), dsl.Fold(("height", "width"), 2)),
          family="patches"),
    _layer("PixelShuffle", of_image(lambda x: x >> dsl.PixelShuffle(2), channels=4), "patches"),
    _layer("PixelUnshuffle", of(lambda x: x >> dsl.PixelUnshuffle(2),
           f32["batch", 2, "2*height", 4]), "patches"),
    _layer("Flatten", of_image(dsl.Flatten()), "ops_shape", agrees="numpy"),
    _layer("FeedForward", of_sequence(lambda x: x >> dsl.FeedForward(6)), "transformer"),
    _layer("Residual", of(lambda x: x >> dsl.Residual(dsl.Dense(4, dsl.tanh))), "layers",
           agrees="numpy", example="examples/digits.py"),
    _layer("concatenation", of(lambda x: dsl.concatenate([x, dsl.tanh(x)], axis=1)), "ops_shape",
           agrees="numpy"),
    _layer("MixtureOfExperts", of(lambda x: x >> dsl.MixtureOfExperts(3, top_k=2, hidden_size=4)),
           "mixture", agrees="its definition", example="examples/mixture.py"),
    *map(_prepared, (dsl.Standardize, dsl.MinMaxScale, dsl.Impute)),
    _prepared(dsl.Discretize, order=0),
    _layer("OneHot", of(lambda x: x >> dsl.OneHot([0, 2, 3]) >> dsl.Dense(2), i64["batch", 2]),
           "preprocessing", agrees="scikit-learn"),
    _layer("Vocabulary", of(lambda x: x >> dsl.Vocabulary(["a", "b"]) >> dsl.Embedding(3, 2),
           i64["batch"]), "vocabulary", agrees="its definition"),
)  # fmt: skip


def _variances(rng: np.random.Generator) -> dict[str, Any]:
    return {"batch_norm.running_var": rng.uniform(0.5, 1.5, 2).astype(np.float32)}


def _norm(name: str, layer: Any, **options: Any) -> System:
    build = of_image(lambda x: x >> layer, channels=options.pop("channels", 2))
    return _layer(name, build, options.pop("family", "normalization"), section=NORMS, **options)


NORM_ROWS = (
    _norm("BatchNorm, training", dsl.BatchNorm(), training=True, feeds=_variances),
    _norm("BatchNorm, inference", dsl.BatchNorm(), feeds=_variances,
          example="examples/digits_cnn.py"),
    _norm("BatchNorm, mean of all batches", dsl.BatchNorm(momentum=None), training=True,
          family="normalization_layers"),
    _norm("BatchNorm without running statistics", dsl.BatchNorm(track_running_stats=False),
          family="normalization_layers"),
    _norm("GroupNorm without bias", dsl.GroupNorm(2, bias=False), channels=4,
          family="torch_layers"),
    _layer("LayerNorm", of_sequence(lambda x: x >> dsl.LayerNorm()), "normalization",
           section=NORMS),
    _norm("GroupNorm", dsl.GroupNorm(2), channels=4),
    _norm("InstanceNorm", dsl.InstanceNorm()),
    _layer("LocalResponseNorm", of_image(lambda x: x >> dsl.LocalResponseNorm(3)),
           "local_pooling", section=NORMS),
    _layer("RMSNorm", of_sequence(lambda x: x >> dsl.RMSNorm()), "normalization", section=NORMS),
)  # fmt: skip


def _sequence(name: str, build: Any, family: str, **options: Any) -> System:
    return _layer(name, build, family, section=SEQUENCES, **options)


def _rnn(name: str, layer: Any, **options: Any) -> System:
    return _sequence(name, of_sequence(lambda x: x >> layer), "recurrent", **options)


def _looped(x: Any, start: Any) -> Any:
    first, second = dsl.GRUCell(3), dsl.LSTMCell(3)
    last = dsl.RNNCell(3)

    def body(h: Any, g: Any, c: Any, row: Any) -> tuple[Any, ...]:
        h = first(row, h)
        g, c = second(h, (g, c))
        return h, g, c, last(g, h)

    return dsl.scan(body, (start, start, start), x)[-1]


_QKV = (f32["batch", "time", 4],) * 3
_TOKENS = i64["batch", "time"]
SEQUENCE_ROWS = (
    _sequence("Embedding", of(lambda x: x >> dsl.Embedding(5, 4), _TOKENS), "embedding"),
    _sequence("EmbeddingBag", of(lambda x: dsl.EmbeddingBag(5, 4, padding_idx=0)(x), _TOKENS),
              "embedding_bag"),
    _sequence("EmbeddingBag of offsets",
              of(lambda x, n: dsl.EmbeddingBag(5, 4, "max")(x, n), i64["tokens"], i64["batch"]),
              "embedding_bag",
              feeds=lambda rng: {"x0": np.array([1, 4, 2, 2, 0]), "x1": np.array([0, 3, 3])}),
    _sequence("SinusoidalPositions", of_sequence(lambda x: x >> dsl.SinusoidalPositions()),
              "embedding", agrees="its formula"),
    _sequence("LearnedPositions", of_sequence(lambda x: x >> dsl.LearnedPositions(8)), "embedding"),
    _sequence("rotary positions", of_sequence(dsl.rotary), "embedding",
              agrees="complex products"),
    _sequence("scaled_dot_product_attention", of(dsl.scaled_dot_product_attention, *_QKV),
              "attention"),
    _sequence("self-attention of several heads",
              of_sequence(lambda x: x >> dsl.MultiHeadAttention(2)), "attention_heads"),
    _sequence("cross-attention", of(lambda x, y: dsl.MultiHeadAttention(2)(x, y),
              f32["batch", "time", 4], f32["batch", "source", 4]), "attention_heads",
              example="examples/translation.py"),
    _sequence("causal attention",
              of_sequence(lambda x: x >> dsl.MultiHeadAttention(2, is_causal=True)),
              "attention_heads", example="examples/char_gpt.py"),
    _sequence("attention masks", of(lambda x, y: dsl.MultiHeadAttention(2)(x, key_mask=y > 0),
              f32["batch", "time", 4], f32["batch", "time"]), "attention_heads",
              example="examples/sequence_classifier.py"),
    _sequence("transformer encoder", of_sequence(lambda x: x >> dsl.TransformerEncoderLayer(2, 6)),
              "transformer", example="examples/sequence_classifier.py"),
    _sequence("transformer decoder",
              of(lambda x, y: dsl.TransformerDecoderLayer(2, 6, is_causal=True)(x, y),
                 f32["batch", "time", 4], f32["batch", "source", 4]), "transformer",
              example="examples/translation.py"),
    _sequence("stack of encoder layers",
              of_sequence(dsl.TransformerEncoder(2, 6, num_layers=2)), "transformer"),
    _sequence("stack of decoder layers", of(dsl.TransformerDecoder(2, 6, num_layers=2),
              f32["batch", "time", 4], f32["batch", "source", 4]), "transformer"),
    _rnn("RNN", dsl.RNN(3), example="examples/recurrent.py"),
    _rnn("LSTM", dsl.LSTM(3), example="examples/char_lstm.py"),
    _rnn("GRU", dsl.GRU(3), example="examples/recurrent.py"),
    _sequence("cells in a loop", of(_looped, f32["time", "batch", 4], f32["batch", 3]),
              "recurrent_cells"),
    _rnn("stacked", dsl.GRU(3, num_layers=2, return_sequences=True)),
    _rnn("bidirectional", dsl.LSTM(2, bidirectional=True, return_sequences=True)),
    _sequence("masked lengths", of(lambda x, n: dsl.GRU(3)(x, lengths=n),
              f32["batch", "time", 4], i64["batch"]), "recurrent",
              feeds=lambda rng: {"x1": np.array([4, 1, 3])}),
    _sequence("scan: a loop of any body",
              of(lambda x: dsl.scan(lambda h, row: (dsl.tanh(h + row),) * 2, x[0] * 0, x)[1],
                 f32["time", 3]), "scan", agrees="finite differences",
              example="examples/neural_ode.py"),
)  # fmt: skip

ROWS = (*NEURON_ROWS, *ACTIVATION_ROWS, *LAYER_ROWS, *NORM_ROWS, *SEQUENCE_ROWS)
