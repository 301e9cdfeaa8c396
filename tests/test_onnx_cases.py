"""A part of onnx's own node cases; `python -m tests.onnx_cases` runs all of them."""

from __future__ import annotations

import warnings

import onnx

from tests.onnx_cases.running import cases_of, outcome

MODULES = (
    *("dft", "qlinearconv", "qlinearmatmul", "tfidfvectorizer", "adam"),
    *(
        "add",
        "averagepool",
        "batch_normalization",
        "bitshift",
        "clip",
        "concat",
        "conv",
        "convtranspose",
    ),
    *("cumsum", "depthtospace", "dequantizelinear", "div", "dropout", "einsum", "gathernd", "gemm"),
    *(
        "gru",
        "if_",
        "layernormalization",
        "loop",
        "lstm",
        "matmul",
        "maxpool",
        "mod",
        "onehot",
        "pad",
    ),
    *("pow", "quantizelinear", "rangeop", "reducemax", "reshape", "resize", "scatternd", "slice"),
    *("softmax", "split", "topk", "transpose", "trilu", "where"),
)
# Cases whose numbers onnx 1.23 has mended: sums of eight bits, and Adam's second parameter.
MENDED = {
    *(f"test_qlinearmatmul_{n}D_int8_float{bits}" for n in (2, 3) for bits in (16, 32)),
    "test_adam_multiple",
}
REFUSED = 40  # of small floats and sequences, which there are none of here


def test_no_case_has_other_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of onnx, which computes some of the cases
        outcomes = [outcome(case) for case in cases_of(MODULES)]
    is_old = tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23)
    known = MENDED if is_old else ()
    assert not [o for o in outcomes if o.result == "wrong" and o.name not in known]
    # What onnx holds of it was computed in float32, with noise of 2e-6 about 0; ours is of float64.
    close = {o.name for o in outcomes if o.result == "close"}
    assert close <= {"test_dft_inverse", "test_dft_inverse_opset19"}
    refused = [o for o in outcomes if o.result == "refused"]
    assert all(o.reason for o in refused)
    assert len(outcomes) > 300
    assert len(refused) <= REFUSED, [(o.name, o.reason) for o in refused]
