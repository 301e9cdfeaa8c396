"""The language that models are written in.

`from dsl import model, Dense, relu, f32, training` is all that a model file imports.
"""

from typing import TYPE_CHECKING, Any

from dsl import convolution, losses, metrics, patches
from dsl.activations import (
    celu,
    elu,
    gaussian,
    geglu,
    gelu,
    gelu_tanh,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    linear,
    log_sigmoid,
    maxout,
    mish,
    prelu,
    reglu,
    relu6,
    selu,
    silu,
    soft_shrink,
    softsign,
    squareplus,
    swiglu,
    swish,
    tanh_shrink,
    threshold,
)
from dsl.attention import (
    MultiHeadAttention,
    causal_mask,
    padding_mask,
    scaled_dot_product_attention,
)
from dsl.augment import (
    Cutout,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from dsl.color import ColorJitter
from dsl.convolution import *  # noqa: F403
from dsl.declare import (
    model,
)
from dsl.draws import (
    random_integers,
    random_normal,
    random_uniform,
)
from dsl.elsewhere import missing as _missing
from dsl.embedding import (
    Embedding,
    LearnedPositions,
    SinusoidalPositions,
    rotary,
    sinusoidal,
)
from dsl.embedding_bag import EmbeddingBag
from dsl.initializers import (
    VarianceScaling,
    constant,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    identity_matrix,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from dsl.layer import (
    Layer,
    parameter,
    state,
    update,
)
from dsl.layers import (
    Bilinear,
    Dense,
    Dropout,
    Flatten,
    PReLU,
    Residual,
    Sequential,
    flatten,
)
from dsl.lora import (
    LoRA,
    lora,
)
from dsl.losses import *  # noqa: F403
from dsl.metrics import *  # noqa: F403
from dsl.mixing import (
    CutMix,
    LabelNoise,
    MaskTokens,
    Mixup,
)
from dsl.mixture import (
    MixtureOfExperts,
)
from dsl.noise import (
    AlphaDropout,
    DropPath,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout,
)
from dsl.normalization import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
)
from dsl.patches import *  # noqa: F403
from dsl.pooling import (
    AdaptiveAveragePool1d,
    AdaptiveAveragePool2d,
    AdaptiveAveragePool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AveragePool1d,
    AveragePool2d,
    AveragePool3d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Upsample,
)
from dsl.recurrent import GRU, LSTM, RNN, SimpleRNN
from dsl.recurrent_cells import GRUCell, LSTMCell, RNNCell
from dsl.regularizers import (
    activity_l1,
    activity_l2,
    l1,
    l2,
    max_norm,
    orthogonality,
    sparsity,
    unit_norm,
)
from dsl.transformer import (
    FeedForward,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from nncompile import elementwise
from nncompile.elementwise import *  # noqa: F403
from nncompile.formula import (
    formula,
)
from nncompile.grad import (
    grad,
    hvp,
    jacobian,
    jvp,
    vjp,
)
from nncompile.graph import (
    Value,
)
from nncompile.model import (
    Model,
)
from nncompile.ops import (
    adaptive_average_pool,
    adaptive_max_pool,
    all,
    any,
    argmax,
    argmin,
    argsort,
    average_pool,
    barrier,
    batch_norm,
    broadcast_to,
    cast,
    concatenate,
    const,
    conv,
    conv_transpose,
    cumsum,
    custom_gradient,
    dot,
    einsum,
    expand_dims,
    flip,
    full,
    gemm,
    global_average_pool,
    global_max_pool,
    group_norm,
    instance_norm,
    iota,
    layer_norm,
    log_softmax,
    logsumexp,
    matmul,
    max,
    max_pool,
    mean,
    min,
    moveaxis,
    norm,
    one_hot,
    ones_like,
    outer,
    pad,
    pooled,
    prod,
    ratio,
    ravel,
    repeat,
    reshape,
    resize,
    rms_norm,
    scan,
    scatter_add,
    softmax,
    sort,
    split,
    squeeze,
    stack,
    std,
    sum,
    swapaxes,
    take,
    take_along_axis,
    tensordot,
    tile,
    top_k,
    total,
    transpose,
    var,
    while_training,
    zeros_like,
)
from nncompile.ops import arrays as _arrays
from nncompile.ops import images as _images
from nncompile.ops.arrays import *  # noqa: F403
from nncompile.ops.images import *  # noqa: F403
from nncompile.optim import (
    Optimizer,
    Plateau,
    Schedule,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    asgd,
    cosine,
    exponential,
    inverse_sqrt,
    lamb,
    lbfgs,
    linear_decay,
    lion,
    multi_step,
    muon,
    nadam,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    radam,
    rmsprop,
    rprop,
    schedule,
    sgd,
    step_decay,
    warm_restarts,
    warmup,
)
from nncompile.optim import constant as constant_rate
from nncompile.recipe import (
    Recipe,
    assign,
    ema,
    maximize,
    minimize,
    swa,
    training,
)
from nncompile.recompute import (
    recompute,
)
from nncompile.types import (
    boolean,
    f32,
    f64,
    i32,
    i64,
    u32,
)

# fmt: off
__all__ = [
    "GRU", "LSTM", "RNN", "AdaptiveAveragePool1d", "AdaptiveAveragePool2d",
    "AdaptiveAveragePool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d",
    "AlphaDropout", "AveragePool1d", "AveragePool2d", "AveragePool3d", "BatchNorm",
    "Bilinear",
    "ColorJitter", "CutMix", "Cutout", "Dense", "DropPath", "Dropout", "Embedding",
    "EmbeddingBag",
    "FeedForward", "Flatten",
    "GRUCell",
    "GaussianDropout", "GaussianNoise", "GlobalAveragePool",
    "GlobalMaxPool", "GroupNorm", "InstanceNorm",
    "LSTMCell",
    "LabelNoise", "Layer", "LayerNorm",
    "LearnedPositions", "LoRA", "MaskTokens", "MaxPool1d", "MaxPool2d", "MaxPool3d",
    "MixtureOfExperts", "Mixup", "Model", "MultiHeadAttention", "Optimizer", "PReLU",
    "Plateau", "RMSNorm",
    "RNNCell",
    "RandomCrop", "RandomHorizontalFlip", "RandomRotation",
    "RandomVerticalFlip", "Recipe", "Residual", "Schedule", "Sequential", "SimpleRNN",
    "SinusoidalPositions", "SpatialDropout", "TransformerDecoder",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "Upsample",
    "Value", "VarianceScaling", "activity_l1", "activity_l2", "adadelta",
    "adafactor",
    "adagrad", "adam",
    "adamax",
    "adamw", "adaptive_average_pool", "adaptive_max_pool", "all", "any", "argmax", "argmin",
    "argsort",
    "asgd",
    "assign", "average_pool", "barrier", "batch_norm", "boolean", "broadcast_to",
    "cast", "causal_mask", "celu", "concatenate", "const", "constant", "constant_rate",
    "conv", "conv_transpose", "cosine", "cumsum", "custom_gradient", "dot", "einsum", "elu",
    "ema", "expand_dims", "exponential", "f32", "f64", "flatten", "flip", "formula", "full",
    "gaussian", "geglu", "gelu", "gelu_tanh", "gemm", "global_average_pool",
    "global_max_pool", "glorot_normal", "glorot_uniform", "glu", "grad", "group_norm",
    "hard_shrink", "hard_sigmoid", "hard_swish", "hard_tanh", "he_normal", "he_uniform",
    "hvp", "i32", "i64", "identity_matrix", "instance_norm", "inverse_sqrt", "iota",
    "jacobian", "jvp", "kaiming_normal", "kaiming_uniform", "l1", "l2", "lamb",
    "layer_norm",
    "lbfgs",
    "leaky_relu", "lecun_normal", "lecun_uniform", "linear", "linear_decay",
    "lion", "log_sigmoid", "log_softmax", "logsumexp", "lora", "matmul", "max", "max_norm",
    "max_pool", "maximize", "maxout", "mean", "min", "minimize", "mish", "model",
    "moveaxis", "multi_step", "muon", "nadam", "norm", "normal", "one_cycle", "one_hot",
    "ones", "ones_like", "orthogonal", "orthogonality", "outer", "pad", "padding_mask",
    "parameter", "piecewise", "plateau", "polynomial", "pooled", "prelu", "prod", "radam",
    "random_integers", "random_normal", "random_uniform", "ratio", "ravel", "recompute",
    "reglu", "relu6", "repeat", "reshape", "resize", "rms_norm", "rmsprop", "rotary",
    "rprop",
    "scaled_dot_product_attention", "scan", "scatter_add", "schedule", "selu", "sgd",
    "silu", "sinusoidal", "soft_shrink", "softmax", "softsign", "sort", "sparsity", "split",
    "squareplus", "squeeze", "stack", "state", "std", "step_decay", "sum", "swa",
    "swapaxes", "swiglu", "swish", "take", "take_along_axis", "tanh_shrink", "tensordot",
    "threshold", "tile", "top_k", "total", "training", "transpose", "truncated_normal",
    "u32", "uniform", "unit_norm", "update", "var", "vjp", "warm_restarts", "warmup",
    "while_training", "xavier_normal", "xavier_uniform", "zeros", "zeros_like",
]
# fmt: on
# Whatever these list is public.
__all__ += _arrays.__all__
__all__ += convolution.__all__
__all__ += elementwise.__all__
__all__ += losses.__all__
__all__ += metrics.__all__
__all__ += patches.__all__
__all__ += _images.__all__

if not TYPE_CHECKING:  # which would take any name for one of these

    def __getattr__(name: str) -> Any:
        raise _missing(name, __all__)
