"""The source of a model file that loads an ONNX file, to be edited and trained."""

from __future__ import annotations

import keyword
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nncompile.diagnostics.printable import printable
from nncompile.frontends.onnx.loading import ImportedModel
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops.reduction.softmax import Softmax

# What the last operator of the file says of its result.
_LOGARITHMS, _PROBABILITIES, _SIGMOIDS = ("LogSoftmax",), ("Softmax", "Normalizer"), ("Sigmoid",)
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


# What the file says of itself, in comments.
_OPTIONS = """\
# network.report says what of the file is trained, tied, constant and renamed. To change it:
#   trainable=["head.*"]       what is trained: the other weights stay as they are
#   outputs=["tensor"]         cut the network at any tensor of the file
#   sizes={"n": "batch"}       call a size of an input otherwise; static={"n": 224} fixes it
#   training=False             batch normalization by the statistics of the file
"""
_NOTHING = """\
    # There is nothing to train, or no output of real numbers. To train, return a loss beside
    # them, {**outputs, "loss": ...}, and add recipe = training(...).
    return dict(outputs)
"""
_HEAD = """\
    # For other classes, put a layer of your own on a tensor before the last layer:
    # load_onnx(..., outputs=["tensor"]), and outputs["tensor"] >> Dense(5, name="head").
    return {
        **outputs,
        # Choose the loss: cross_entropy of logits, binary_cross_entropy_with_logits,
        # mean_squared_error, ...; every output of one number is printed while training.
"""
_DATA = """
# What it is trained on: arrays by input, a table, or its path; a pair of these is data for
# training and for validation.
"""


@dataclass(frozen=True)
class _Loss:
    """A loss: its expression in `{x}` and `{label}`, the metric beside it, the type of the label,
    and what is imported for both."""

    expression: str
    label: str
    shape: tuple[object, ...]
    dtype: str = "i64"
    metric: str = ""
    imports: tuple[str, ...] = ()


def source_of(
    model: ImportedModel, file: Path, target: Path, sizes: Mapping[str, str] | None = None
) -> str:
    """The text of a Python file at `target` that loads the ONNX file, calls it on inputs of its own
    names and types, and trains it by a loss that the last operator and the shape of the first
    output of floats suggest: comments say what to edit. Without such an output it trains nothing.
    `sizes` are those that the model was loaded with.
    """
    assert model.report is not None
    floats = [n for n, v in model.outputs.items() if v.dtype.is_float and v.rank]
    loss_output = floats[0] if floats and model.parameters else None
    loss = None if loss_output is None else _loss_of(model, loss_output)
    imports = {"model"} | {dtype_name(v.type) for v in model.inputs.values()}
    imports |= {"adamw", "option", "training", loss.dtype, *loss.imports} if loss else set()
    own = ("rate", "network", "outputs", "scores", "recipe", "Path", "load_onnx")
    taken = {*imports, *keyword.kwlist, *own}
    arguments = {name: _identifier(name, taken, "x") for name in model.inputs}
    title = _identifier(model.name, taken, "net")
    taken |= {*model.outputs}  # scikit-learn's classifiers give a label
    label = _identifier(loss.label, taken, loss.label) if loss else ""
    parameters = [f"{arguments[n]}={_annotation(v.type)}" for n, v in model.inputs.items()]
    if loss:
        parameters.append(f"{label}={_annotation_of(loss.dtype, loss.shape)}")
    body = _body(model, arguments, loss_output, loss, label)
    relative = Path(os.path.relpath(file.resolve(), target.resolve().parent)).as_posix()
    return "\n".join(
        [
            _docstring(model, target, bool(loss)),
            "",
            "from pathlib import Path",
            "",
            *_import_lines(sorted(imports, key=lambda n: (n.lower(), n))),
            "from nncompile import load_onnx",
            "",
            *(['rate = option(1e-4, low=1e-8, high=1.0, log=True, help="learning rate")', ""]
              if loss else []),
            *_OPTIONS.splitlines(),
            *_loading_lines(relative, sizes or {}),
            "",
            "",
            f"@model(predict={_names(model.predict)})",
            *_call_lines(f"def {title}(", parameters, "):"),
            *body,
            "",
            *(_recipe_lines(model, title, [*arguments.values(), label]) if loss else []),
        ]
    )  # fmt: skip


def _loading_lines(relative: str, sizes: Mapping[str, str]) -> list[str]:
    file = f"Path(__file__).parent / {_quoted(relative)}"
    if not sizes:
        return [f"network = load_onnx({file})"]
    listed = ", ".join(f"{_quoted(name)}: {_quoted(size)}" for name, size in sizes.items())
    return [
        "# The file says a number for the batch; here it is open.",
        *_call_lines("network = load_onnx(", [file, f"sizes={{{listed}}}"], ")"),
    ]


def _docstring(model: ImportedModel, target: Path, trains: bool) -> str:
    report = model.report
    assert report is not None
    commands = ("check", "train", "show", "compile") if trains else ("verify", "show", "compile")
    by = f" by {_plain(report.producer)}" if report.producer else ""
    tensors = f"{len(report.trained)} trained tensors, {len(report.states)} states"
    lines = [
        f'"""The network of {_plain(report.file)}, to go on with: edit this file, then',
        "",
        *(f"    nncompile {command} {target.name}" for command in commands),
        "",
        f"The ONNX file has {report.nodes:,} nodes of opset {report.opset}{by}, {tensors}.",
        '"""',
    ]
    return "\n".join(lines)


def _body(
    model: ImportedModel, arguments: Mapping[str, str], loss_output: str | None,
    loss: _Loss | None, label: str,
) -> list[str]:  # fmt: skip
    passed = [
        f"{n}={n}" if n == given and n.isidentifier() else f"**{{{_quoted(n)}: {given}}}"
        for n, given in arguments.items()
    ]
    lines = _call_lines("    outputs = network(", passed, ")", "    ")
    if loss is None:
        return [*lines, *_NOTHING.splitlines()]
    assert loss_output is not None
    made = f"outputs[{_quoted(loss_output)}]"
    lines += [
        f"    scores = {made}",
        *_HEAD.splitlines(),
        f'        "loss": {loss.expression.format(x="scores", label=label)},',
    ]
    if loss.metric:
        lines.append(f"        {loss.metric.format(x='scores', label=label)},")
    return [*lines, "    }", ""]


def _recipe_lines(model: ImportedModel, title: str, inputs: list[str]) -> list[str]:
    first = [v.shape[0] for v in model.inputs.values() if v.shape]
    batch = first[0] if first and isinstance(first[0], int) else 32
    fixed = [f"# The file fixes its batch at {batch}: export it with an open one to train on more."]
    example = ", ".join(f"{_quoted(n)}: ..." for n in inputs)
    return [
        *(fixed if batch != 32 else []),
        f"recipe = training({title}, optimizer=adamw(rate), batch_size={batch}, epochs=10)",
        *_DATA.splitlines(),
        f"# data = {{{example}}}",
        '# data = "train.csv"',
        '# data = dict(numpy.load("train.npz"))',
        "",
    ]


def _loss_of(model: ImportedModel, name: str) -> _Loss:
    """The loss that an output of floats suggests."""
    value = model.outputs[name]
    maker, shape = _maker(model, value), value.shape
    axis = 1 if len(shape) > 3 else -1
    classes = shape[axis] if len(shape) > 1 else 1
    rows = tuple(d for i, d in enumerate(shape) if i != axis % len(shape))
    several = isinstance(classes, int) and classes > 1
    along = "" if axis == -1 else f", axis={axis}"
    accuracy = f'"accuracy": accuracy({{x}}, {{label}}{along})'
    if maker in _SIGMOIDS:
        return _Loss(
            "binary_cross_entropy({x}, {label})", "target", shape, "f32",
            metric='"accuracy": binary_accuracy({x}, {label})',
            imports=("binary_accuracy", "binary_cross_entropy"),
        )  # fmt: skip
    if several and (maker in _PROBABILITIES or "prob" in name.lower()):
        # The logarithm of a softmax is computed as one; others may hold a 0.
        is_softmax = isinstance(value.op, Softmax)
        likely = "log({x})" if is_softmax else "log(maximum({x}, 1e-7))"
        return _Loss(
            f"negative_log_likelihood({likely}, {{label}}{along})", "label", rows, metric=accuracy,
            imports=(
                "accuracy", "log", *(() if is_softmax else ("maximum",)), "negative_log_likelihood"
            ),
        )  # fmt: skip
    if several:
        logarithms = maker in _LOGARITHMS
        function = "negative_log_likelihood" if logarithms else "cross_entropy"
        return _Loss(
            f"{function}({{x}}, {{label}}{along})", "label", rows,
            metric=accuracy, imports=("accuracy", function),
        )  # fmt: skip
    return _Loss(
        "mean_squared_error({x}, {label})", "target", shape, "f32", imports=("mean_squared_error",)
    )


def _maker(model: ImportedModel, value: Value) -> str:
    """The operator of the file that made a value, before that was quantized."""
    waiting, seen = [value], {value}
    while waiting:
        location = model.graph.locations.location(waiting[-1])
        call = location.call if location is not None else ""
        if call and call not in _QUANTIZING:
            return call
        fresh = [v for v in waiting.pop().args if v not in seen]
        seen.update(fresh)
        waiting += reversed(fresh)  # what is quantized comes before its scale
    return ""


def dtype_name(type_: Type) -> str:
    """What an element type is called in a model file."""
    return "boolean" if type_.dtype.name == "bool" else str(type_.dtype)


def _annotation(type_: Type) -> str:
    return _annotation_of(dtype_name(type_), type_.shape)


def _annotation_of(dtype: str, shape: Iterable[object]) -> str:
    sizes = ", ".join(str(d) if isinstance(d, int) else f'"{d}"' for d in shape)
    return f"{dtype}[{sizes or '()'}]"


def _identifier(name: str, taken: set[str], otherwise: str) -> str:
    """The name as one of Python that is free, and is then taken."""
    plain = re.sub(r"\W+", "_", name).strip("_") or otherwise
    plain = plain if plain.isidentifier() else f"{otherwise}_{plain}"
    free = unused_name(plain, taken, "_")
    taken.add(free)
    return free


def _quoted(text: str) -> str:
    """The text as a literal with double quotes."""
    if '"' in text or "\\" in text or printable(text) != text:
        return repr(text)
    return f'"{text}"'


def _names(names: tuple[str, ...]) -> str:
    """One name, or a tuple of several, as a literal."""
    quoted = [_quoted(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"({', '.join(quoted)})"


def _plain(text: str) -> str:
    """A text of the file within a docstring."""
    return printable(text).replace("\\", "/").replace('"', "'")


def _call_lines(head: str, items: list[str], tail: str, indent: str = "") -> list[str]:
    """A call on one line, or an argument a line where that would be long."""
    line = head + ", ".join(items) + tail
    if len(line) <= 100:
        return [line]
    return [head, *(f"{indent}    {item}," for item in items), indent + tail]


def _import_lines(names: list[str]) -> list[str]:
    line = f"from dsl import {', '.join(names)}"
    if len(line) <= 100:
        return [line]
    listed = textwrap.fill(", ".join(names) + ",", 96, break_long_words=False)
    return ["from dsl import (", *(f"    {x}" for x in listed.splitlines()), ")"]
