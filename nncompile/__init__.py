"""nncompile: neural networks and learning rules compiled to standard ONNX.

A model is a graph of values; `grad` and its relatives make graphs of graphs; `compile_step` and
`compile_model` make ONNX of them; `Trainer` trains through onnxruntime; `export` writes files.
Models are usually declared with the package `dsl`.
"""

from typing import TYPE_CHECKING, Any

from nncompile.diagnostics.extras import on_demand
from nncompile.ir.gc_pause import kept

with kept():
    from nncompile.autodiff.grad import grad, hvp, jacobian, jvp, vjp
    from nncompile.diagnostics.errors import (
        BackendError,
        CheckpointError,
        CompileError,
        DTypeError,
        FeedError,
        FileError,
        FormulaError,
        GradientError,
        ModelError,
        ModelWarning,
        ProviderError,
        ShapeError,
        TrainingError,
    )
    from nncompile.diagnostics.version import VERSION
    from nncompile.elementwise.formula import formula
    from nncompile.ir.graph import Graph, Input
    from nncompile.ir.interpreter import evaluate
    from nncompile.ir.op import Op, Sample, Value
    from nncompile.ir.types import (
        DType,
        Type,
        bf16,
        boolean,
        f16,
        f32,
        f64,
        i8,
        i16,
        i32,
        i64,
        u8,
        u16,
        u32,
        u64,
    )
    from nncompile.program.category_codes import CategoryCodes
    from nncompile.program.composition import compose
    from nncompile.program.model import Model
    from nncompile.program.page_makers import adds_to_runs
    from nncompile.program.recipe import Recipe, assign, minimize, training
    from nncompile.program.step import Step

if TYPE_CHECKING:
    from nncompile.compiler.adapters import load_lora, merge
    from nncompile.compiler.compile import (
        CompiledModel,
        CompiledStep,
        compile_model,
        compile_step,
    )
    from nncompile.compiler.export import export
    from nncompile.compiler.stages import Report
    from nncompile.frontends.onnx.loading import load_onnx
    from nncompile.interop.torch_modules import (
        from_torch_state_dict,
        to_torch_module,
        to_torch_state_dict,
    )
    from nncompile.parallel import mpi
    from nncompile.report import RunPage as RunPage
    from nncompile.runtime import Session, StepRunner, available_providers, vocabularies
    from nncompile.train import Event, History, Trainer
    from nncompile.verify.precision_report import precision_report

_ON_DEMAND = {
    "nncompile.compiler.adapters": ["load_lora", "merge"],
    "nncompile.compiler.compile": [
        "CompiledModel",
        "CompiledStep",
        "compile_model",
        "compile_step",
    ],
    "nncompile.compiler.export": ["export"],
    "nncompile.compiler.stages": ["Report"],
    "nncompile.frontends.onnx.loading": ["load_onnx"],
    "nncompile.interop.torch_modules": [
        "from_torch_state_dict",
        "to_torch_module",
        "to_torch_state_dict",
    ],
    "nncompile.parallel": ["mpi"],
    "nncompile.report": ["RunPage"],
    "nncompile.runtime": ["Session", "StepRunner", "available_providers", "vocabularies"],
    "nncompile.train": ["Event", "History", "Trainer"],
    "nncompile.verify.precision_report": ["precision_report"],
}
_attribute = on_demand(__name__, _ON_DEMAND)
adds_to_runs(lambda: _attribute("RunPage")())  # report.html

__version__ = VERSION

__all__ = [
    "BackendError",
    "CategoryCodes",
    "CheckpointError",
    "CompileError",
    "CompiledModel",
    "CompiledStep",
    "DType",
    "DTypeError",
    "Event",
    "FeedError",
    "FileError",
    "FormulaError",
    "GradientError",
    "Graph",
    "History",
    "Input",
    "Model",
    "ModelError",
    "ModelWarning",
    "Op",
    "ProviderError",
    "Recipe",
    "Report",
    "Sample",
    "Session",
    "ShapeError",
    "Step",
    "StepRunner",
    "Trainer",
    "TrainingError",
    "Type",
    "Value",
    "assign",
    "available_providers",
    "bf16",
    "boolean",
    "compile_model",
    "compile_step",
    "compose",
    "evaluate",
    "export",
    "f16",
    "f32",
    "f64",
    "formula",
    "from_torch_state_dict",
    "grad",
    "hvp",
    "i8",
    "i16",
    "i32",
    "i64",
    "jacobian",
    "jvp",
    "load_lora",
    "load_onnx",
    "merge",
    "minimize",
    "mpi",
    "precision_report",
    "to_torch_module",
    "to_torch_state_dict",
    "training",
    "u8",
    "u16",
    "u32",
    "u64",
    "vjp",
    "vocabularies",
]


def __getattr__(name: str) -> Any:
    with kept():
        return _attribute(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
