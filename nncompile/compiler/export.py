"""Files for other programs: the inference model, the training step and its halves, TorchScript."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nncompile.backends.onnx import OPSET, check
from nncompile.backends.optional import torch_backend
from nncompile.compiler.adapters import Trained, has_numbers, merged, save_adapter
from nncompile.compiler.companions import companion, save_beside
from nncompile.compiler.compile import CompiledStep, compile_model, compile_step
from nncompile.compiler.inference_files import Stored, check_size, export_model
from nncompile.compiler.originals import export_original
from nncompile.compiler.repositories import export_ort, export_repository
from nncompile.compiler.stages import Report
from nncompile.compiler.targets import INFERENCE, REPOSITORIES, SUFFIXES, target_of
from nncompile.compiler.training_info import check_training_info, trainable_model
from nncompile.compiler.web import export_web
from nncompile.compiler.weights import ParameterSet, Path_, first_state
from nncompile.diagnostics.errors import (
    ModelError,
    ModelWarning,
    seed_number,
    warn,
)
from nncompile.diagnostics.hints import suggests_names
from nncompile.passes import Observer
from nncompile.program.flat_gradients import flattened
from nncompile.program.model import Model
from nncompile.program.rate_groups import with_rates_of
from nncompile.program.recipe import Recipe
from nncompile.runtime import write_atomically
from nncompile.runtime.origin import origin_of
from nncompile.runtime.tensor_files import state_path


class InitialWeightsWarning(ModelWarning):
    """A file for inference holds the weights that a model begins with."""


@suggests_names
def export(
    source: Model | Recipe | CompiledStep | Trained,
    path: Path_,
    to: str | None = None,
    params: Mapping[str, Any] | Path_ | None = None,
    opset: int = OPSET,
    external_data: bool | Path_ | None = None,
    seed: int | None = None,
    without: Collection[str] = (),
    observe: Observer | None = None,
    report: Report | None = None,
    training_info: bool = False,
    kernels: bool = True,
    sample: Mapping[str, Any] | None = None,
    precision: str = "f32",
    calibration: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
    skip: Sequence[str] = (),
    flat: bool = False,
) -> tuple[Path, ...]:
    """Writes a model, a recipe (which may be compiled) or what a trainer has trained to `path` and
    returns the files written, each whole or not at all.

    `to`, which the suffix of `path` tells where it is left out: "onnx" is the inference model with
    its weights; "original" the file that a model was loaded from, with other weights and nothing
    else; "step" the training step, with its first state beside it
    (`OUT.state.safetensors` for `OUT.onnx`); "gradient" and "update" its two halves, whose
    metadata `nncompile.reduce` say how what processes compute is put together, and "accumulate"
    and "apply" those of a step of several batches;
    "torchscript" the inference model for `torch.jit.load`, "torchscript-step" the training step
    with its state in it, "pt2" the inference model for `torch.export.load`. "adapter" is the file
    of the factors of a model with low-rank adaptation, for `load_lora`; other files have them
    merged into the weights. "web" is a directory that trains in a browser and in Node, with a
    `sample` of data by the names of inputs. "triton" and "mlserver" are directories of models, to
    which this one is added under its name, with what these servers need to know of it; "ort" is
    the inference model in onnxruntime's own format, which its smallest builds read.

    `params` are the weights and states by path, those of a trainer (`trainer.state`) as a rule,
    or the file of a checkpoint: all that the file needs. For a model, where that is all there and
    of its type, there may be others: slots and averages, and the parameters of a larger model that
    this one is part of, so that `export(generator, path, params=trainer.state)` takes a generator
    out of what was trained. The first state of a step has none but the step's own; a learning rate
    that was set while it was trained is one of them. Without `params`, a trainer's are its own, and
    those of a model or recipe are drawn from `seed` (that of the recipe, or 0). A warning says that
    an inference model has initial weights, unless `seed` was given. `external_data` moves the
    weights of an ONNX model out of it: True writes them to `OUT.weights.safetensors` beside it, a
    path names a `.safetensors` file that has them already, None decides by their size.

    A step or a half of it has calls of native kernels, each with a function in the file that says
    in standard operators what it computes; without `kernels` it has only the operators, as some
    runtimes do not read functions.

    `flat` halves hand the gradients over in a few long vectors of float32 instead of one by one.

    With `training_info` the inference model of a recipe holds its training step, too, as ONNX's
    format has it: runtimes that predict pass over it.

    `precision` is how the inference model for onnxruntime stores its weights and computes with
    them; its inputs and outputs stay as they are. "f16": matrix products, convolutions and tables
    in 16 bits, all else in float32. "int8": whole numbers with a scale for each channel, where the
    ranges of what enters convolutions are those of the `calibration`, arrays of examples by the
    names of the inputs, or several such batches. "int4": matrix products by weights of 4 bits.
    Layers whose paths match `skip` stay in float32.

    `without`, `observe` and `report` are those of `compile_step`.

    Raises `ModelError` for an unknown target or precision, for `params` that lack one or have
    another type, or for a step are none of its (`CheckpointError` where they come from a file), and
    for a step without a recipe, `FeedError` for a calibration that does not fit, `BackendError` for
    what the target cannot express, `FileError` for what cannot be written and for a file beside
    `path` that no export wrote.
    """
    if isinstance(source, Trained):
        params = source.state if params is None else params
        source = source.recipe
    compiled_before = source if isinstance(source, CompiledStep) else None
    if isinstance(source, CompiledStep):
        source = source.source.recipe
    if not isinstance(source, Model | Recipe):
        raise ModelError(
            f"export takes a model, a recipe or a trainer, got {type(source).__name__}",
            hint="the first argument is what is written, the second the file",
        )
    if seed is not None:
        seed_number(seed)
    path, parameters = Path(path), None if params is None else ParameterSet.of(params)
    model = source.model if isinstance(source, Recipe) else source
    if to is None and path.suffix == SUFFIXES["adapter"] and model.adapters:
        to = "adapter"
    to = target_of(path, to)
    _check_flat(flat, to)
    how = _How(tuple(without), opset, observe, report)
    stored = Stored.of(precision, calibration, skip, to, training_info)
    if training_info:
        check_training_info(source, to, external_data)
    elif to in INFERENCE:
        first = source.seed if isinstance(source, Recipe) else 0
        return _export_inference(
            model, path, to, parameters, external_data, seed, first, how, stored
        )
    if to == "adapter":
        return (save_adapter(model, path, parameters, seed or 0),)
    if isinstance(source, Model):
        raise ModelError(
            f"{to} of model {source.name} needs a recipe",
            hint=f"say how it is trained: recipe = training({source.name}, optimizer=adam(1e-3))",
        )
    if external_data and not training_info:
        problem = (
            "holds its state"
            if to == "torchscript-step"
            else "holds no weights, its state is a separate file"
        )
        raise ModelError(f"{to} {problem}", hint="leave external_data out")
    if parameters is not None:
        source = with_rates_of(source, parameters.tensors)
    # The format of a training step in a file has no functions, and browsers have no kernels.
    has_kernels = kernels and not training_info and to != "web"
    step = _arranged(_step_of(source, compiled_before, has_kernels, *how), flat)
    if training_info:
        return (_export_with_step(step, path, parameters, seed, how),)
    return _export_step(step, path, to, parameters, seed, sample)


def _check_flat(flat: bool, to: str) -> None:
    if flat and to not in ("gradient", "update"):
        raise ModelError(
            f"{to} hands no gradients over that could be flat",
            hint="flat is for to='gradient' and to='update'",
        )


def _arranged(step: CompiledStep, flat: bool) -> CompiledStep:
    """The step, or one whose halves hand gradients over in a few vectors."""
    return replace(step, source=flattened(step.source), variants={}) if flat else step


class _How(NamedTuple):
    """How graphs are compiled: see `compile_step`."""

    without: tuple[str, ...]
    opset: int
    observe: Observer | None
    report: Report | None


def _export_inference(
    model: Model,
    path: Path,
    to: str,
    parameters: ParameterSet | None,
    external_data: bool | Path_ | None,
    seed: int | None,
    first: int,
    how: _How,
    stored: Stored,
) -> tuple[Path, ...]:
    """Writes an inference model, of weights that are drawn from the seed `first` where there are
    neither weights nor a seed."""
    drawn = parameters is None and seed is None and isinstance(external_data, bool | None)
    seed = first if seed is None else seed
    if model.adapters and isinstance(external_data, bool | None):
        model, parameters = merged(model, parameters, seed)
    if to == "original":
        if external_data:
            raise ModelError("the file holds its weights", hint="leave external_data out")
        files = export_original(model, path, parameters, seed)
    else:
        compiled = compile_model(model, *how)

        def written(file: Path) -> tuple[Path, ...]:
            target = "onnx" if to == "ort" or to in REPOSITORIES else to
            return export_model(compiled, file, target, parameters, external_data, seed, stored)

        if to in REPOSITORIES:
            files = export_repository(to, path, model, written)
        elif to == "ort":
            if external_data:
                raise ModelError("a .ort file holds its weights", hint="leave external_data out")
            files = (export_ort(path, written),)
        else:
            files = written(path)
    if drawn and not has_numbers(model):
        warn(
            f"{path} holds the initial weights of {model.name}: export(trainer, path) writes "
            "trained ones; seed=0 says that initial ones are meant",
            InitialWeightsWarning,
        )
    return files


def _export_with_step(
    step: CompiledStep, path: Path, parameters: ParameterSet | None, seed: int | None, how: _How
) -> Path:
    """Writes an inference model that holds its training step."""
    state = first_state(step.source, parameters, seed)
    check_size(sum(x.nbytes for x in state.values()), "without training_info they may lie beside")
    seed = step.source.recipe.seed if seed is None else seed
    proto = trainable_model(compile_model(step.source.model, *how), step, state, seed)
    return write_atomically(path, proto.SerializeToString())


def _export_step(
    step: CompiledStep,
    path: Path,
    to: str,
    parameters: ParameterSet | None,
    seed: int | None,
    sample: Mapping[str, Any] | None,
) -> tuple[Path, ...]:
    """Writes a training step, or one of its halves."""
    if to == "web":
        return export_web(step, path, first_state(step.source, parameters, seed), sample)
    if to == "torchscript-step":
        state = first_state(step.source, parameters, seed)
        content = torch_backend().step_to_bytes(step.source, state, step.optimized)
        return (write_atomically(path, bytes(content)),)
    content = step.content(to)
    with step.report.stage("checking"):
        check(content)
    if to != "step":
        return (write_atomically(path, content),)
    state = first_state(step.source, parameters, seed)
    with companion(path, state_path(path), "state") as (model_file, file):
        save_beside(file, state, step.source.model, "state", origin_of(step.source))
        write_atomically(model_file, content)
    return state_path(path), path


def _step_of(
    recipe: Recipe,
    known: CompiledStep | None,
    kernels: bool,
    without: Collection[str],
    opset: int,
    observe: Observer | None,
    report: Report | None,
) -> CompiledStep:
    """The step that is known, if it is compiled of this recipe in this way and nobody observes
    how, or a new one."""
    if (
        known is not None
        and known.source.recipe is recipe
        and (known.without, known.opset, known.kernels) == (tuple(without), opset, kernels)
        and observe is None
        and report is None
    ):
        return known
    return compile_step(recipe, without, opset, observe, report, kernels)
