"""The fine-tuning of files whose batch is one number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from nncompile import Trainer
from nncompile.diagnostics.errors import FeedError
from nncompile.finetuning.plan import Plan, tuned
from tests.onnx_files import FLOAT, weight, written

node = helper.make_node


@pytest.mark.parametrize("is_open", [True, False])
def test_a_batch_that_the_file_fixes(tmp_path: Path, is_open: bool) -> None:
    """As torch's exporter fixes it, unless it is told not to."""
    nodes = "a = Reshape(x, shape)  y = MatMul(a, w)"
    tensors = {"shape": np.array([0 if is_open else 1, 4]), "w": weight(4, 3)}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [1, 2, 2])}, ["y"], tensors)
    np.savez(tmp_path / "d.npz", x=weight(6, 2, 2), label=np.arange(6) % 3)
    plan = Plan(str(file), str(tmp_path / "d.npz"), "label", "cross_entropy")
    if not is_open:
        with pytest.raises(FeedError, match=r"m\.onnx takes 1 in a batch, .* 6 examples") as error:
            tuned(plan)
        assert "dynamic_axes={'x': {0: 'batch'}}" in str(error.value)
        return
    made = tuned(plan)
    Trainer(made.recipe, threads=1).fit(made.data[0], epochs=1, verbose=0)
