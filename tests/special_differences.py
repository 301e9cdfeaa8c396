"""What may differ from numpy in the sweep of special values, each with its reason.

Nothing may stand here that no longer differs, unless it is marked as depending on the machine:
on the instructions of its processor, or on the version of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.special_comparison import Difference

ONNX, TORCH, BOTH = "onnxruntime", "torch", "*"
SIGN = "sign of zero"


@dataclass(frozen=True)
class Allowed:
    """Differences of programs, outputs, backends and kinds of data; `*` stands for anything."""

    program: str
    output: str
    backend: str
    kind: str
    reason: str
    everywhere: bool = True  # whether it differs on every machine

    def covers(self, found: Difference) -> bool:
        pairs = (
            (found.program, self.program),
            (found.output, self.output),
            (found.backend, self.backend),
            (found.kind, self.kind),
        )
        return all(fnmatchcase(text, pattern.replace("[", "[[]")) for text, pattern in pairs)

    def __str__(self) -> str:
        return f"{self.program}, {self.output}, {self.backend}, {self.kind}: {self.reason}"


def _each(
    programs: tuple[str, ...],
    output: str,
    backend: str,
    kind: str,
    reason: str,
    everywhere: bool = True,
) -> tuple[Allowed, ...]:
    return tuple(Allowed(p, output, backend, kind, reason, everywhere) for p in programs)


_CELU = "nncompile.frontends.onnx.entries.activations._celu_of"

ALLOWED: tuple[Allowed, ...] = (
    # Elementwise: numbers.
    *_each(
        ("gate f32", "gate f64", "gate i8", "gate i16", "gate i32", "gate i64"),
        *("value", ONNX, "number", "the runtime's Sigmoid: to within 10⁻⁷ of 1, as documented"),
    ),
    *_each(
        ("gate f32", "gate f64"),
        *("gradient 0", ONNX, "number", "the runtime's Sigmoid: to within 10⁻⁷ of 1"),
    ),
    Allowed("tanh f64", "gradient 0", ONNX, "number", "1 − tanh² cancels where tanh is near 1"),
    Allowed("tanh_shrink f32", "value", ONNX, "number", "x − tanh x cancels: 10⁻⁷ of x"),
    Allowed("sinc f64", "value", ONNX, "number", "Sin of float64 is right to 10⁻¹⁶ of 1 at nπ"),
    *_each(
        ("erf f32", "normal_cdf f32"),
        *(
            "value",
            ONNX,
            "number",
            "erf(NaN) is 1 in onnxruntime 1.23; `gelu` keeps it, and a check costs 40 % of that",
        ),
        everywhere=False,
    ),
    Allowed("gelu f32", "value", TORCH, "number", "torch's kernel overflows from 10³⁸ on", False),
    Allowed(
        "lgamma f64", "value", TORCH, "number", "torch's for AVX-512: NaN at −1.8·10³⁰⁸", False
    ),
    Allowed("gelu f32", "value", TORCH, SIGN, "torch's kernel for SSE gives 0 for −0", False),
    *_each(
        ("mod f?? f??", "fmod f?? f??", "Map: mod(*"),
        *("value", TORCH, "number", "torch's vector kernel is NaN where x/y overflows"),
        everywhere=False,
    ),
    Allowed(
        *("gammaln f64", "value", TORCH, "number", "torch's kernel at subnormal numbers"),
        everywhere=False,
    ),
    *_each(
        ("xlog1py f?? f??", "log1p f??"),
        *("value", TORCH, "number", "torch's vector kernel of log1p flushes subnormal numbers"),
        everywhere=False,
    ),
    Allowed(
        *("Map: uint32(x0) f32", "value", TORCH, "number", "NaN as an integer is not defined in C"),
        everywhere=False,
    ),
    *_each(
        ("dsl.losses.binary._focal *", "dsl.losses.binary._with_positive_weight *"),
        *("*", BOTH, "number", "powers and factors of up to 10²⁰ of what was rounded once"),
        everywhere=False,
    ),
    Allowed(
        *("dsl.losses.classes._focused *", "*", BOTH, "number"),
        "negative and huge powers of 1 − eˣ, of which kernels of expm1 round one digit otherwise",
        everywhere=False,
    ),
    Allowed(
        *("nncompile.optim.adaptive._ratio *", "gradient 3", TORCH, "number"),
        "a difference of roots of numbers that are nearly equal",
        everywhere=False,
    ),
    Allowed(
        *("nncompile.optim.adafactor._normalised *", "*", TORCH, "number"),
        "the inverse of a maximum of 0 and −0, of which either may be taken",
        everywhere=False,
    ),
    # Of ONNX files, where α is an attribute: a number near 1, at which nobody takes a gradient.
    *_each(
        ("elu_of f32 f32", "elu_of f64 f64", f"{_CELU} f32 f32"),
        *("value", ONNX, "number", "α of 10²⁰ times what is below the normal numbers"),
    ),
    *_each(
        (f"{_CELU} f32 f32", f"{_CELU} f64 f64"),
        *("gradient 1", ONNX, "number", "that at α cancels where x/α is near 0"),
    ),
    *_each(
        ("elu_of f32 f32", "elu_of f64 f64"),
        *("gradient 1", ONNX, SIGN, "by Where, which gives 0 for −0"),
    ),
    # Elementwise: the sign of zero.
    *_each(
        (
            *("elu_of f32 f32", "elu_of f64 f64", f"{_CELU} f32 f32", f"{_CELU} f64 f64"),
            *("where bool f32 f32", "where bool f64 f64", "Map: where(*"),
            *("expm1 f32", "expm1 f64", "log1p f32", "log1p f64", "trunc f32", "trunc f64"),
            *("arcsin f64", "arcsinh f64", "arctan f64", "arctanh f64", "sinh f64", "erf f64"),
            *("fmax f32 f32", "fmax f64 f64", "fmin f32 f32", "fmin f64 f64"),
            *("heaviside f32 f32", "heaviside f64 f64", "cubic_kernel *"),
            *(
                "nncompile.ops.images.grid_sampling._bounded *",
                "nncompile.optim.adaptive._variance *",
            ),
        ),
        *("value", ONNX, SIGN, "by Where, which gives 0 for −0"),
    ),
    *_each(
        (
            *("cosh f64", "dsl.losses.binary._hinge *", "dsl.losses.margins._ranked *"),
            *("nncompile.optim.descent._sized *", "mod *", "xlog1py *"),
            "nncompile.optim.adam._descend_rectified *",
        ),
        *("gradient *", ONNX, SIGN, "by Where, which gives 0 for −0"),
    ),
    *_each(
        ("nncompile.ops.reduction.order_statistics._between *", "Map: where(*"),
        *("*", ONNX, SIGN, "by Where, which gives 0 for −0"),
        everywhere=False,
    ),
    *_each(
        ("relu f32", "relu f64", "dsl.losses.binary._hinge *"),
        *("value", BOTH, SIGN, "max(−0, 0) is either, and a kernel may say x where x > 0 is not"),
    ),
    *_each(
        ("relu6 f32", "relu6 f64", "clip *", "hard_clip *"),
        *("value", BOTH, SIGN, "a limit and x may be 0 and −0, and either is the larger one"),
        everywhere=False,
    ),
    *_each(
        ("mod *", "floor_divide *", "xlog1py *"),
        *("value", BOTH, SIGN, "0 as a difference or a product has the sign of that"),
    ),
    Allowed(
        *("dsl.losses.classes._focused *", "*", BOTH, SIGN),
        "0 as a product with a difference has the sign of that",
        everywhere=False,
    ),
    # Ops. What is multiplied by 0 and what is left out differ where it is not finite.
    *_each(
        ("AveragePool-3", "AveragePool-5", "AveragePool-1?", "AverageSpread-3", "AverageSpread-5"),
        *("value", ONNX, "*", "float64 has no kernel: the product with a matrix has 0·NaN"),
    ),
    Allowed("AverageSpread-1?", "value", ONNX, "*", "float64: the matrix has 0·NaN"),
    *_each(
        ("Conv-9", "Conv-10", "ConvTranspose-8", "ConvTranspose-9"),
        *("*", ONNX, "*", "float64 has no kernel: the product with a matrix has 0·NaN"),
    ),
    *_each(
        ("Conv-?", "ConvTranspose-?"),
        *("*", BOTH, "*", "what is padded is multiplied, 0·∞, by one and left out by the other"),
    ),
    Allowed(
        *("ConvWeightGradient-?", "*", TORCH, "*"),
        "what is padded, 0·∞, torch's kernel for AVX-512 leaves out, and that for SSE multiplies",
        everywhere=False,
    ),
    *_each(
        ("Enlarge-5", "Enlarge-6", "Enlarge-7", "Enlarge-8", "Enlarge-9"),
        *("*", BOTH, "*", "numpy's meaning is a product with a matrix, which has 0·NaN"),
    ),
    *_each(
        ("BatchNorm-?", "LayerNorm-?"),
        *("value *", BOTH, "*", "a mean is made of distances from a first estimate: ∞ − ∞ is NaN"),
    ),
    Allowed("BatchNorm-?", "gradient *", BOTH, "*", "by way of such a mean", everywhere=False),
    Allowed("LayerNorm-?", "gradient *", BOTH, "*", "by way of such a mean", everywhere=False),
    *_each(
        ("BatchNormGradient-?", "LayerNormGradient-?"),
        *("*", BOTH, "*", "terms of such a mean, or that overflow: ∞ − ∞ is NaN"),
        everywhere=False,
    ),
    Allowed("ChannelAffine-?", "value", ONNX, "*", "the kernel subtracts a mean: ∞ − ∞ is NaN"),
    Allowed(
        *("Attention-?", "*", TORCH, "*", "an infinite score is as good as a mask to the kernel"),
        everywhere=False,
    ),
    *_each(
        ("Cholesky-?", "Inverse-?", "Determinant-?", "Cofactors-?", "Solve-?"),
        *("*", BOTH, "*", "no such matrix: it is not definite, or a pivot overflows its inverse"),
        everywhere=False,
    ),
    Allowed(
        *("SignedLogDeterminant-?", "*", BOTH, "*", "a pivot that small has few digits left"),
        everywhere=False,
    ),
)
