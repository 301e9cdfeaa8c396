"""Faults in low-rank adaptation, fine-tuning, and files with other weights."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

ADAPTATION = (
    Fault(
        "nncompile/program/low_rank.py",
        "        factor = self.alpha / self.rank\n",
        "        factor = 1.0\n",
        "tests/test_lora.py",
    ),
    Fault(
        "nncompile/program/adaptation.py",
        "is_turned ^ is_left ^ flags[not is_left]",
        "is_turned ^ is_left",
        "tests/test_lora_models.py",
    ),
    Fault(
        "nncompile/program/adaptation.py",
        "for p in held if p not in free and p not in RANDOM_STATE",
        "for p in held if p in free",
        "tests/test_lora_models.py",
    ),
    Fault(
        "nncompile/program/heads.py",
        "tuple(count if n == size else n for n in op.shape)",
        "op.shape",
        "tests/test_finetuning.py",
    ),
    Fault(
        "nncompile/program/heads.py",
        "if above[v] * below[v] == below[output]:",
        "if above[v]:",
        "tests/test_finetuning.py",
    ),
    Fault(
        "nncompile/finetuning/objectives.py",
        "return log(maximum(prediction, small)), text",
        "return prediction, text",
        "tests/test_finetuning.py",
    ),
    Fault(
        "nncompile/frontends/onnx/original.py",
        "weights[kept.path].T if kept.is_transposed else",
        "weights[kept.path] if kept.is_transposed else",
        "tests/test_onnx_original.py",
    ),
    Fault(
        "nncompile/frontends/onnx/quantized.py",
        "    whole = np.rint(floats / scale.reshape(shape)).astype(np.float64)\n",
        "    whole = np.floor(floats / scale.reshape(shape)).astype(np.float64)\n",
        "tests/test_onnx_original.py",
    ),
    Fault(
        "nncompile/program/model.py",
        "values = replace([*chosen.values(), *updates.values()], new, sizes, self._applied_at)",
        "values = replace([*chosen.values(), *updates.values()], new, sizes)",
        "tests/test_lora_models.py",
    ),
)
