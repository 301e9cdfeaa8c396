"""Native kernels: a call in a file computes what its function says, with the library or without it.
What needs the library is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dsl import Dense, Value, adam, adamw, cross_entropy, f32, i64, lion, model, relu, sgd, training
from nncompile.backends.onnx import check, to_model
from nncompile.compiler.compile import compile_step
from nncompile.program.recipe import Recipe

IS_INSTALLED = importlib.util.find_spec("nncompile_kernels") is not None
needs_library = pytest.mark.skipif(
    not IS_INSTALLED, reason="nncompile-kernels is not installed: pip install ./kernels"
)
OPTIMIZERS = {
    "sgd": sgd(0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": adam(1e-2),
    "adamw": adamw(1e-2),
    "lion": lion(1e-3),
}


def recipe(optimizer: Any) -> Recipe:
    @model
    def net(x: Value = f32["batch", 12], label: Value = i64["batch"]) -> dict[str, Value]:
        logits = x >> Dense(16, relu) >> Dense(8, relu) >> Dense(4)
        return {"loss": cross_entropy(logits, label)}

    return training(net, minimize="loss", optimizer=optimizer, batch_size=8)


def models(optimizer: Any) -> tuple[Any, onnx.ModelProto, onnx.ModelProto]:
    """A compiled step, its file without kernels and that with them."""
    compiled = compile_step(recipe(optimizer))
    plain, native = (to_model(compiled.step, kernels=kernels) for kernels in (False, True))
    return compiled, plain, native


def run(
    proto: onnx.ModelProto, feeds: Mapping[str, Any], with_library: bool = False
) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if with_library:
        import nncompile_kernels

        options.register_custom_ops_library(nncompile_kernels.library())
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fed = {i.name: feeds[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, fed), strict=True))


def feeds_of(compiled: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 12)).astype(np.float32), "label": rng.integers(0, 4, 8)}
    return {**compiled.source.initial(), **batch}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_calls_is_the_same_step(name: str) -> None:
    compiled, plain, native = models(OPTIMIZERS[name])
    check(native)
    assert {f.name.partition("_")[0] for f in native.functions} == {"Elementwise"}
    feeds = feeds_of(compiled)
    expected, inlined = run(plain, feeds), run(native, feeds)
    for output, x in expected.items():
        np.testing.assert_array_equal(inlined[output], x, err_msg=output)


@needs_library
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_library_computes_what_the_functions_say(name: str) -> None:
    compiled, _, native = models(OPTIMIZERS[name])
    feeds = feeds_of(compiled)
    expected, found = run(native, feeds), run(native, feeds, with_library=True)
    for output, x in expected.items():
        np.testing.assert_allclose(found[output], x, rtol=3e-6, atol=1e-7, err_msg=output)
