"""Writes an ONNX file of fewer nodes."""

from __future__ import annotations

import os
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nncompile.backends.onnx.protos import all_nodes
from nncompile.cli.import_ import OnnxFile
from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.run import HOUR
from nncompile.cli.shared import out, print_files
from nncompile.diagnostics.errors import BackendError, FeedError, FileError
from nncompile.diagnostics.tables import columns
from nncompile.frontends.onnx.reading import operator, read_model
from nncompile.frontends.onnx.simplify.simplifying import simplified
from nncompile.frontends.onnx.writing import write_model
from nncompile.runtime import written_together
from nncompile.runtime.child import in_child
from nncompile.runtime.cuda.placement import predicted
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS
from nncompile.verify.onnx_files import Comparison, compare

Device = StrEnum("Device", ("cpu", "cuda"))
_HINT = "--no-verify writes it without a comparison"


def optimize(
    file: OnnxFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write.", show_default="MODEL.optimized.onnx"
        ),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Write it without comparing it with the original.")
    ] = False,
    device: Annotated[
        Device,
        typer.Option(help="cuda: in operators that onnxruntime computes on an NVIDIA GPU."),
    ] = Device.cpu,
    seed: Annotated[int, typer.Option(help="Seed of the inputs that both are run on.")] = 0,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Longest time it takes; 0: any time.")
    ] = HOUR,
) -> Outcome:
    """Write an ONNX file of fewer nodes that computes the same.

    What depends on constants and on sizes alone is computed, what nobody takes is left out, and
    nodes are joined. Inputs, outputs, metadata, and the names of weights and nodes that are left
    stay. The result is compared with the original, both in onnxruntime without its optimizations,
    at several sizes: where a number differs by more than rounding, nothing is written.

    --device cuda writes a file for onnxruntime's CUDA provider, in operators that it has kernels
    for, and prints which nodes of data the CPU computes nevertheless. nncompile's own sessions on
    CUDA do so by themselves.

    \b
    Examples:
      nncompile optimize resnet.onnx
      nncompile optimize resnet.onnx -o small.onnx
      nncompile optimize resnet.onnx --device cuda
    """
    target = output or file.with_suffix(f".optimized{file.suffix}")
    if target.exists() and file.exists() and os.path.samefile(target, file):
        raise FileError(f"{target} is the original", hint="-o FILE.onnx writes another file")
    before = operators_of(file)
    with written_together(target.parent) as directory:
        names, comparison, is_exact, on_host = in_child(
            *(_written, file, directory / target.name, no_verify, seed, device is Device.cuda),
            what=f"the optimization of {file}",
            timeout=timeout or None,
        )
    after = operators_of(target)
    paths = [target.with_name(name) for name in names]
    sizes = file.stat().st_size, target.stat().st_size
    out.print(f"nodes  {before.total():,} → {after.total():,}")
    out.print(f"bytes  {sizes[0]:,} → {sizes[1]:,}")
    changed = [(op, f"{before[op]:,}", "→", f"{after[op]:,}")
               for op in sorted({*before, *after}, key=lambda op: (after[op] - before[op], op))
               if before[op] != after[op]]  # fmt: skip
    if changed:
        out.print(columns([("  " + op, *rest) for op, *rest in changed], (1, 3)))
    out.print(str(comparison) if comparison else "not compared with the original")
    if is_exact:
        out.print("nothing is joined that rounds in another way: the numbers would differ too far")
    if device is Device.cuda:
        out.print(f"on the CPU: {', '.join(on_host) or 'no data'}")
    print_files(*paths)
    found: dict[str, Any] = {
        "nodes": {"before": before.total(), "after": after.total()},
        "bytes": {"before": sizes[0], "after": sizes[1]},
        "operators": {"before": before, "after": after},
        "comparison": None if comparison is None else vars(comparison),
        "exact": is_exact,
        "on_cpu": on_host if device is Device.cuda else None,
        "files": described_files(paths),
    }
    return Outcome(found)


class Written(NamedTuple):
    """What was written: the names of files, how it compares, whether nothing is joined that rounds
    in another way, and for CUDA the nodes of data that the CPU computes."""

    names: list[str]
    comparison: Comparison | None
    is_exact: bool
    on_host: list[str]


def _written(file: Path, target: Path, no_verify: bool, seed: int, for_cuda: bool) -> Written:
    """Writes the file, and says how it compares: again without what rounds in another way where it
    differs too far. Raises `BackendError` where it still does."""
    comparison = None
    for is_exact in (False, True):
        model = simplified(file, is_exact)
        on_host: list[str] = []
        if for_cuda:
            model, _ = spelled(model, SPELLINGS)
            on_host = list(dict.fromkeys(map(str, predicted(model))))
        paths = write_model(model, target, str(file.parent))
        if no_verify:
            return Written([path.name for path in paths], None, False, on_host)
        try:
            comparison = compare(file, target, seed)
        except (BackendError, FeedError) as error:
            raise BackendError(f"{file} cannot be compared: {error.problem}", hint=_HINT) from None
        if comparison.agrees:
            return Written([path.name for path in paths], comparison, is_exact, on_host)
        if comparison.problem is None:
            raise BackendError(f"onnxruntime runs {file} on no inputs that are drawn", hint=_HINT)
    assert comparison is not None
    raise BackendError(
        f"the optimized form of {file} computes other numbers: {comparison.problem}",
        hint=f"nothing was written; this is a fault of nncompile. {_HINT}",
    )


def operators_of(file: Path) -> Counter[str]:
    """The operators of a file, those of graphs within nodes among them, with their number."""
    return Counter(operator(node) for node in all_nodes(read_model(file).graph.node))
