"""Writes a model or its training step to files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nncompile.backends.onnx import OPSET
from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.precision import (
    Calibrate,
    Precision,
    Skip,
    calibration_of,
    print_report,
)
from nncompile.cli.report import Counts, Timing, peak_memory
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import (
    Chosen,
    File,
    Verbose,
    Without,
    data_or_none,
    out,
    print_costs,
    print_files,
    skipped_passes,
)
from nncompile.cli.trained import checkpoint_of
from nncompile.cli.training import Emulate, in_precision_of
from nncompile.compiler.adapters import has_numbers
from nncompile.compiler.export import export
from nncompile.compiler.stages import Report
from nncompile.compiler.targets import INFERENCE, REPOSITORIES, TARGETS, target_of
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.tables import columns
from nncompile.ir.types import Array
from nncompile.program.model_file import Declared
from nncompile.program.recipe import Recipe
from nncompile.train.sources.declared import sample_of

# Of others, OUT.step.onnx and the like.
SUFFIXES = {
    "onnx": ".onnx",
    "torchscript": ".pt",
    "torchscript-step": ".step.pt",
    "pt2": ".pt2",
    "adapter": ".adapter.safetensors",
    "web": ".web",
    "ort": ".ort",
    **{to: f".{to}" for to in REPOSITORIES},
}
Target = StrEnum("Target", TARGETS)  # type: ignore[misc]  # its members are known when it runs
DEFAULT_TARGET = Target(TARGETS[0])


def compile(
    file: File,
    to: Annotated[Target, typer.Option(help="What to write.")] = DEFAULT_TARGET,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file, or the directory, to write.")
    ] = None,
    params: Annotated[Path | None, typer.Option(help="Weights: a checkpoint, or a run.")] = None,
    initial: Annotated[
        bool, typer.Option("--initial", help="Initial weights are intended: no note about them.")
    ] = False,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators.")] = OPSET,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="Weights in OUT.weights.safetensors.")
    ] = False,
    training_info: Annotated[
        bool, typer.Option("--training-info", help="The training step in the ONNX file, too.")
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels/--no-kernels", help="Calls of native kernels in steps, or none."),
    ] = True,
    flat: Annotated[
        bool, typer.Option("--flat", help="Gradients in a few long vectors: gradient and update.")
    ] = False,
    precision: Precision = None,
    calibrate: Calibrate = None,
    skip: Skip = None,
    emulate: Emulate = False,
    without: Without = None,
    model: Chosen = None,
    settings: Set = None,
    verbose: Verbose = False,
) -> Outcome:
    """Write a model or its training step for onnxruntime or torch.

    onnx: the inference model, with its weights. original: an ONNX file that was loaded, with other
    weights and nothing else. step: one training step, with its first state in
    OUT.state.safetensors. gradient, update: the two halves of the step. torchscript: the inference
    model for torch.jit.load, in Python and C++. torchscript-step: one training step that holds its
    state and changes it. pt2: the inference model for torch.export.load. adapter: the factors of
    low-rank adaptation. web: a directory with a page that trains in a browser, and a module for
    browsers and Node. ort: the inference model in onnxruntime's own format. triton, mlserver: a
    directory of models for these servers, to which this one is added. Weights are initial ones
    unless a checkpoint is given, which is said in a line.

    With --precision an inference model for onnxruntime has weights of 16, 8 or 4 bits, and what
    that costs on the data that the file holds out is printed: metrics, size, and the layers that
    are furthest from float32.

    \b
    Examples:
      nncompile compile digits.py -o digits.onnx --params runs/digits/latest
      nncompile compile digits.py --to step -o step.onnx --verbose
      nncompile compile digits.py --to gradient --flat -o gradient.onnx
      nncompile compile digits.py --training-info -o digits.onnx
      nncompile compile digits.py --precision int8 -o digits.onnx --params runs/digits/latest
      nncompile compile digits.py --to torchscript -o digits.pt
      nncompile compile digits.py --to torchscript-step -o digits.step.pt
      nncompile compile digits.py --to web -o site
      nncompile compile digits.py --to triton -o models --params runs/digits/latest
    """
    declared = load_file(file, model, settings)
    recipe = declared.recipe_if_any
    source = recipe or declared.model
    if (training_info or to not in (*INFERENCE, "adapter")) and declared.way_out:
        source = declared.recipe  # or the way to one
    is_step = to not in (*INFERENCE, "adapter")
    _check_emulation(emulate, is_step, to)
    if is_step and isinstance(source, Recipe):
        source = in_precision_of(source, {"precision": precision, "emulate": emulate})
    stored = "f32" if is_step else precision or "f32"
    if output is None:
        output = Path(file.stem + SUFFIXES.get(to, f".{to}.onnx"))
    target_of(output, to)  # before anything is compiled
    calibration = None
    if stored == "int8" or calibrate is not None:
        calibration = calibration_of(declared, calibrate)
    weights = params if params is None else checkpoint_of(params)
    counts, report = Counts(), Report()
    with Timing() as timing:
        paths = export(
            source,
            output,
            to,
            weights,
            opset,
            external_data or None,
            seed=0 if recipe is None else recipe.seed,
            without=skipped_passes(without),
            observe=counts if verbose else None,  # who observes passes has them run
            report=report,
            training_info=training_info,
            kernels=kernels,
            sample=_sample(declared) if to == "web" else None,
            precision=stored,
            calibration=calibration,
            skip=skip or (),
            flat=flat,
        )
    if verbose:
        rows = [
            (name, f"{before:,}", "→", f"{after:,} nodes", f"{1e3 * seconds:.1f} ms")
            for name, before, after, seconds in counts.rows
        ]
        out.print(columns(rows, (1, 3, 4)))
        print_costs(report)
        peak = peak_memory()
        out.print(f"{timing.seconds:.2f} s in all" + (f", peak memory {peak}" if peak else ""))
    print_files(*paths)
    if to == "web":
        out.print(f"python -m http.server -d {output} shows it on http://localhost:8000")
    has_weights = weights is not None or has_numbers(declared.model)
    is_measured = to == "onnx" and stored != "f32" and has_weights
    lost = print_report(declared, output, weights, calibration) if is_measured else None
    untrained = to in INFERENCE and params is None and not has_numbers(declared.model)
    if untrained and not initial:
        typer.echo(
            f"{output} holds initial weights: --params CHECKPOINT writes trained ones, "
            "--initial says that initial ones are meant",
            err=True,
        )
    return Outcome(
        {
            "model": declared.model.name,
            "to": to,
            "initial_weights": untrained,
            "files": described_files(paths),
            "options": declared.settings,
            "seconds": report.seconds,
            "nodes": report.nodes,
            **({"precision": stored, "lost": lost.described} if lost else {}),
        }
    )


def _check_emulation(emulate: bool, is_step: bool, to: str) -> None:
    """Raises `ModelError` where there is nothing to emulate."""
    if emulate and not is_step:
        raise ModelError(
            f"--emulate is of training steps, and {to} is for inference",
            hint="leave it out, or write --to step",
        )


def _sample(declared: Declared) -> dict[str, Array] | None:
    """Some of the data that the file declares; None without any."""
    data = data_or_none(declared)
    return None if data is None else sample_of(declared.model, data.train, declared.recipe.seed)
