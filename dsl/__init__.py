"""The language that models are written in.

`from dsl import model, Dense, relu, f32, training` is all that a model file imports.
`from dsl import *` shadows no name of Python's: `from dsl import max, sum` imports these by name.
"""

from typing import TYPE_CHECKING, Any

from dsl.activations import *
from dsl.augmentation.color import *
from dsl.augmentation.draws import *
from dsl.augmentation.images import *
from dsl.augmentation.labels import *
from dsl.declare import model
from dsl.foreign_names import missing as _missing
from dsl.initializers import *
from dsl.layers.attention import *
from dsl.layers.base import *
from dsl.layers.convolution import *
from dsl.layers.dense import *
from dsl.layers.embedding import *
from dsl.layers.embedding_bag import *
from dsl.layers.lora import *
from dsl.layers.mixture import *
from dsl.layers.noise import *
from dsl.layers.normalization import *
from dsl.layers.patches import *
from dsl.layers.pooling import *
from dsl.layers.preprocessing.categories import *
from dsl.layers.preprocessing.missing import *
from dsl.layers.preprocessing.scaling import *
from dsl.layers.preprocessing.vocabulary import *
from dsl.layers.recurrent import *
from dsl.layers.recurrent_cells import *
from dsl.layers.transformer import *
from dsl.losses import *
from dsl.losses.declaration import Reducing, loss, pointwise
from dsl.metrics import *
from dsl.quantization import *
from dsl.regularizers import *
from nncompile.autodiff.checkpointing import recompute
from nncompile.autodiff.grad import grad, hvp, jacobian, jvp, vjp
from nncompile.elementwise import *
from nncompile.elementwise import abs as abs
from nncompile.elementwise import divmod as divmod
from nncompile.elementwise import pow as pow
from nncompile.elementwise import round as round
from nncompile.elementwise.formula import formula
from nncompile.ir.op import Value
from nncompile.ir.types import bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from nncompile.ops import all as all
from nncompile.ops import any as any
from nncompile.ops import max as max
from nncompile.ops import min as min
from nncompile.ops import sum as sum
from nncompile.ops.array_functions import *
from nncompile.ops.image_functions import *
from nncompile.ops.network_functions import *
from nncompile.optim import *
from nncompile.program.file_options import option
from nncompile.program.loss_scaling import grad_scaler
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, assign, ema, maximize, minimize, swa, training

# Type checkers read the names here, and not in the lists of other modules.
# fmt: off
__all__ = [
    # Models and recipes.
    "Model", "Recipe", "Value", "assign", "ema", "grad_scaler", "maximize", "minimize", "model",
    "option", "quantization_aware", "swa", "training",
    # Element types.
    "bf16", "boolean", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
    # Gradients.
    "formula", "grad", "hvp", "jacobian", "jvp", "recompute", "vjp",
    # Layers.
    "AdaptiveAveragePool1d", "AdaptiveAveragePool2d", "AdaptiveAveragePool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AlphaDropout", "AveragePool1d", "AveragePool2d",
    "AveragePool3d", "BatchNorm", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "ConvTranspose3d", "Dense", "DepthwiseConv2d", "DropPath", "Dropout",
    "Embedding", "EmbeddingBag", "FeedForward", "Flatten", "Fold", "GRU", "GRUCell",
    "GaussianDropout", "GaussianNoise", "GlobalAveragePool", "GlobalMaxPool", "GroupNorm",
    "InstanceNorm", "LPPool1d", "LPPool2d", "LPPool3d", "LSTM", "LSTMCell", "Layer", "LayerNorm",
    "LearnedPositions", "LoRA", "LocalResponseNorm", "MaxPool1d", "MaxPool2d", "MaxPool3d",
    "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "MixtureOfExperts", "MultiHeadAttention", "PReLU",
    "PixelShuffle", "PixelUnshuffle", "RMSNorm", "RNN", "RNNCell", "Residual", "SeparableConv2d",
    "Sequential", "SimpleRNN", "SinusoidalPositions", "SpatialDropout", "TransformerDecoder",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "Unfold",
    "Upsample", "causal_mask", "flatten", "lora", "padding_mask", "parameter", "rotary",
    "scaled_dot_product_attention", "sinusoidal", "state", "update",
    # Preprocessing.
    "Discretize", "Impute", "MinMaxScale", "OneHot", "Standardize", "Vocabulary",
    # Activations.
    "celu", "elu", "gaussian", "geglu", "gelu", "gelu_tanh", "glu", "hard_shrink", "hard_sigmoid",
    "hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "maxout", "mish", "prelu",
    "reglu", "relu6", "selu", "silu", "soft_shrink", "softsign", "squareplus", "swiglu", "swish",
    "tanh_shrink", "threshold",
    # Augmentation.
    "ColorJitter", "CutMix", "Cutout", "LabelNoise", "MaskTokens", "Mixup", "RandomCrop",
    "RandomHorizontalFlip", "RandomRotation", "RandomVerticalFlip", "random_integers",
    "random_normal", "random_uniform",
    # Losses.
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_focal_loss",
    "contrastive_loss", "cosine_distance", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "ctc_loss", "focal_loss", "gaussian_nll", "hinge", "hinge_embedding_loss",
    "huber", "info_nce", "kl_divergence", "log_cosh", "mae", "margin_ranking_loss",
    "mean_absolute_error", "mean_squared_error", "mse", "multiclass_hinge",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "negative_log_likelihood",
    "perceptron_loss", "poisson_loss", "quantile_loss", "soft_margin_loss", "triplet_loss",
    # Losses of one's own.
    "Reducing", "loss", "pointwise",
    # Metrics.
    "accuracy", "binary_accuracy", "confusion_matrix", "f1_score", "iou", "perplexity", "precision",
    "r2_score", "recall", "roc_auc", "root_mean_squared_error", "top_k_accuracy",
    # Initializers.
    "VarianceScaling", "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
    "identity_matrix", "kaiming_normal", "kaiming_uniform", "lecun_normal", "lecun_uniform",
    "normal", "ones", "orthogonal", "truncated_normal", "uniform", "xavier_normal",
    "xavier_uniform", "zeros",
    # Regularizers.
    "activity_l1", "activity_l2", "l1", "l2", "max_norm", "orthogonality", "sparsity", "unit_norm",
    # Optimizers and learning rates.
    "Optimizer", "Schedule", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw",
    "adjustable", "asgd", "constant_rate", "cosine", "exponential", "inverse_sqrt", "lamb", "lbfgs",
    "linear_decay", "lion", "multi_step", "muon", "nadam", "one_cycle", "piecewise", "plateau",
    "polynomial", "radam", "rmsprop", "rprop", "schedule", "sgd", "step_decay", "warm_restarts",
    "warmup",
    # Functions of arrays.
    "argmax", "argmin", "argsort", "argwhere", "bincount", "broadcast_to", "cast", "cdist",
    "cholesky", "concatenate", "const", "cross", "cummax", "cummin", "cumprod", "cumsum", "det",
    "diag", "diagonal", "diff", "dot", "einsum", "expand_dims", "eye", "flatnonzero", "flip",
    "full", "histogram", "inv", "iota", "isin", "kron", "kthvalue", "logcumsumexp", "logdet",
    "masked_select", "matmul", "matrix_power", "mean", "median", "meshgrid", "moveaxis", "nonzero",
    "norm", "ones_like", "outer", "pad", "prod", "put_along_axis", "quantile", "ravel", "repeat",
    "reshape", "roll", "rot90", "scatter", "searchsorted", "slogdet", "solve", "solve_triangular",
    "sort", "split", "squeeze", "stack", "std", "swapaxes", "take", "take_along_axis", "tensordot",
    "tile", "trace", "transpose", "tril", "triu", "var", "zeros_like",
    # Functions of networks.
    "adaptive_average_pool", "adaptive_max_pool", "average_pool", "barrier", "batch_norm", "conv",
    "conv_transpose", "custom_gradient", "gemm", "global_average_pool", "global_max_pool",
    "group_norm", "instance_norm", "layer_norm", "log_softmax", "logsumexp", "max_pool", "one_hot",
    "pooled", "ratio", "resize", "rms_norm", "scan", "scatter_add", "softmax", "top_k", "total",
    "while_training",
    # Functions of images.
    "affine_grid", "fold", "grid_sample", "local_response_norm", "lp_pool", "max_pool_with_indices",
    "max_unpool", "pixel_shuffle", "pixel_unshuffle", "unfold",
    # Elementwise functions.
    "absolute", "acos", "acosh", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctan2", "arctanh", "around", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "cbrt", "ceil", "clip", "copysign", "cos", "cosh", "deg2rad", "degrees",
    "digamma", "divide", "equal", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "fabs", "fix",
    "float_power", "floor", "floor_divide", "fmax", "fmin", "fmod", "gammaln", "gate", "greater",
    "greater_equal", "hard_clip", "heaviside", "hypot", "i0", "i0e", "i1", "i1e", "invert",
    "isclose", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "left_shift", "less",
    "less_equal", "lgamma", "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2",
    "logical_and", "logical_not", "logical_or", "logical_xor", "logit", "maximum", "minimum", "mod",
    "modf", "multiply", "nan_to_num", "negative", "normal_cdf", "not_equal", "polygamma",
    "positive", "power", "psi", "rad2deg", "radians", "reciprocal", "relu", "remainder",
    "right_shift", "rint", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh", "softplus", "sqrt",
    "square", "step", "stop_gradient", "subtract", "tan", "tanh", "true_divide", "trunc", "where",
    "xlog1py", "xlogy",
]
# fmt: on

# Names of Python's own, which `from dsl import *` leaves as they are: `from dsl import max` and
# `dsl.max` are the functions here.
BUILTINS = ("abs", "all", "any", "divmod", "max", "min", "pow", "round", "sum")

if not TYPE_CHECKING:  # which would take any name for one of these

    def __getattr__(name: str) -> Any:
        raise _missing(name, [*__all__, *BUILTINS])
