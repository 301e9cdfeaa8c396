"""The page of the architecture, made from the code: its picture, its rooms, and four journeys.

`python -m tests.architecture_page` writes it; the test suite compares it, and takes each journey to
see that it calls what the page says, in that order.
"""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.rooms import FAMILIES, FLOORS, ROOT, floors, modules, room_imports
from tests.rooms import tree as parsed

PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"


@dataclass(frozen=True)
class Journey:
    """A way through the code: `steps` are functions in the order in which they are first called,
    with what each does."""

    title: str
    summary: str
    steps: tuple[tuple[str, str], ...]


JOURNEYS = (
    Journey(
        "An input to ONNX",
        "`export(net, 'net.onnx', seed=0)`: from a function of inputs to a file of standard ops.",
        (
            ("dsl.declare:model", "calls the user's function once, with symbolic inputs"),
            ("dsl.layers.base:Layer.parameter", "a layer declares its parameters by name"),
            ("nncompile.ops.contraction.matmul:matmul", "a function chooses the op"),
            (
                "nncompile.ir.op:apply",
                "infers the type, interns the node, keeps the line",
            ),
            ("nncompile.elementwise.trace_formula:trace", "a formula becomes one expression"),
            ("nncompile.compiler.export:export", "asks for the graph that inference needs"),
            ("nncompile.program.model:Model.inference", "takes out what only training needs"),
            (
                "nncompile.passes.weight_folding:bake",
                "puts the weights in, folds what is fixed",
            ),
            ("nncompile.passes:optimize", "rewrites the graph until nothing changes"),
            ("nncompile.backends.onnx.model:to_model", "makes the ONNX model"),
            ("nncompile.backends.onnx.emitter:Emitter.lower", "asks each op for its nodes"),
            ("nncompile.diagnostics.files:write_atomically", "writes beside, syncs and renames"),
        ),
    ),
    Journey(
        "A gradient",
        "`grad(loss, parameters)`: graph in, graph out.",
        (
            ("nncompile.autodiff.grad:grad", "checks that the result is a real scalar"),
            ("nncompile.autodiff.grad:vjp", "starts from the cotangents of the outputs"),
            ("nncompile.passes.stabilise:stabilise", "makes naive spellings stable first"),
            ("nncompile.autodiff.grad:_backward", "goes through the nodes against their order"),
            ("nncompile.ops.reduction.sums:Sum.pullback", "an op gives the gradients at its own"),
            ("nncompile.elementwise.map:Map.pullback_by", "a formula asks for its derivative"),
            ("nncompile.elementwise.derivative:differentiate", "sympy differentiates the formula"),
        ),
    ),
    Journey(
        "A recipe to a step",
        "`training(net, minimize='loss', optimizer=adam(1e-3))`: one graph from batch and state to "
        "the next state.",
        (
            (
                "nncompile.diagnostics.options:Options.__post_init__",
                "an optimizer is declared: its options and its rate are checked",
            ),
            ("nncompile.program.recipe:training", "checks the recipe against the model"),
            ("nncompile.compiler.compile:compile_step", "asks for the step, and compiles it"),
            ("nncompile.program.composition:compose", "puts loss, gradients and updates together"),
            ("nncompile.autodiff.grad:grad", "the gradients at all trained parameters"),
            ("nncompile.program.gradient_transforms:prepared", "clipping, noise, accumulation"),
            ("nncompile.optim.adam:adam.update", "the next value of a parameter, and its slots"),
            (
                "nncompile.program.metric_aggregation:accumulation",
                "how metrics add up",
            ),
            ("nncompile.passes:optimize", "rewrites the whole step"),
            ("nncompile.backends.onnx.model:to_model", "makes the ONNX model of the step"),
            ("nncompile.runtime.runner:StepRunner.__init__", "loads it into onnxruntime"),
        ),
    ),
    Journey(
        "A batch through training",
        "`Trainer(recipe).fit(data)`: the loop around the step.",
        (
            ("nncompile.train.trainer:Trainer.fit", "the loop over epochs and batches"),
            ("nncompile.runtime.feeds:check_feeds", "refuses data that do not fit, by name"),
            ("nncompile.train.data:Feeder.epoch", "shuffles, and cuts into batches"),
            (
                "nncompile.runtime.runner:StepRunner.step",
                "one run of the step, state in place",
            ),
            ("nncompile.runtime.runner:StepRunner.metrics", "what the step gave beside its state"),
            ("nncompile.train.sums:Sums.add", "metrics added up over the epoch"),
            ("nncompile.train.sums:Sums.results", "and divided, for callbacks and history"),
        ),
    ),
)


def text() -> str:
    """The whole page."""
    height = max(floors(room_imports()).values())
    lines = [
        "# Architecture",
        "",
        "A model flows through these folders to a file or a training. Each is a phase of the",
        "compiler, and imports only what stands below it, so that it can be read with those alone;",
        f"there are {height} floors of them, and no files import each other.",
        "",
        "![The rooms from the command line down to the diagnostics, with the four journeys through "
        "them](images/architecture.svg)",
        "",
        "The test suite makes this page of the code, and takes each journey: these functions are",
        "called, in this order.",
    ]
    for number, journey in enumerate(JOURNEYS, 1):
        lines += ["", f"## {number}. {journey.title}", "", journey.summary, ""]
        lines += ["| file | function | what it does |", "|---|---|---|"]
        for step, what in journey.steps:
            module, name = step.split(":")
            path = modules()[module].relative_to(ROOT)
            lines.append(f"| `{path}` | `{name}` | {what} |")
    lines += ["", "## The rooms", "", "| floor | room | what it is |", "|---|---|---|"]
    for floor, rooms in reversed(list(enumerate(FLOORS, 1))):
        lines += [f"| {floor} | {_path(room)} | {sentence(room)} |" for room in rooms]
    lines += ["", "The ops are in families, which import each other in this order:", ""]
    lines += ["| family | what it holds |", "|---|---|"]
    for names in FAMILIES:
        lines += [f"| `{name}/` | {sentence(f'nncompile.ops.{name}')} |" for name in names]
    return "\n".join(lines) + "\n"


def _path(room: str) -> str:
    path = modules()[room].relative_to(ROOT)
    return f"`{path.parent}/`" if path.name == "__init__.py" else f"`{path}`"


def sentence(module: str) -> str:
    """What the docstring of a module says first."""
    doc = " ".join((ast.get_docstring(parsed(module)) or "").split())
    return doc.partition(". ")[0].rstrip(".")


_ROW, _LEFT, _WIDE, _TOP, _VISIT, _GAP = 42, 20, 700, 60, 20, 70
_COLORS = ("#3566a8", "#b3541e", "#2e7d4f", "#7a4fa3")


def picture() -> str:
    """The rooms from the top down, and beside them the journeys: a stop for each visit of a room,
    from left to right."""
    rows = [room for rooms in reversed(FLOORS) for room in rooms]
    at = {room: _TOP + i * _ROW for i, room in enumerate(rows)}
    ways = [_visits(journey) for journey in JOURNEYS]
    width = _LEFT + _WIDE + sum(_VISIT * len(way) + _GAP for way in ways) + _LEFT
    height = _TOP + len(rows) * _ROW + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for room, y in at.items():
        lines += [
            f'<line x1="{_LEFT}" x2="{width - _LEFT}" y1="{y + 17}" y2="{y + 17}" '
            'stroke="#e3e7ec"/>',
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDE}" height="34" rx="5" fill="#f3f5f8" '
            'stroke="#c3cad3"/>',
            f'<text x="{_LEFT + 12}" y="{y + 22}" font-weight="bold">{_plain(_path(room))}</text>',
            f'<text x="{_LEFT + 205}" y="{y + 22}" fill="#444" font-size="11">'
            f"{_plain(_short(sentence(room)))}</text>",
        ]
    left = _LEFT + _WIDE
    for journey, way, color in zip(JOURNEYS, ways, _COLORS, strict=True):
        places = [
            (left + _GAP / 2 + _VISIT * (i + 0.5), at[room] + 17) for i, room in enumerate(way)
        ]
        left += _VISIT * len(way) + _GAP
        middle = (places[0][0] + places[-1][0]) / 2
        points = " ".join(f"{x:g},{y:g}" for x, y in places)
        lines += [
            f'<text x="{middle:g}" y="34" text-anchor="middle" fill="{color}" font-size="12">'
            f"{_plain(journey.title)}</text>",
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>',
        ]
        for number, (x, y) in enumerate(places, 1):
            lines += [
                f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="{color}"/>',
                f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle" fill="#ffffff" '
                f'font-size="10">{number}</text>',
            ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _visits(journey: Journey) -> list[str]:
    """The rooms that a journey comes to, one after the other."""
    return [room for room, _ in itertools.groupby(map(_room, journey.steps))]


def _plain(words: str) -> str:
    return escape(words.replace("`", ""))


def _room(step: tuple[str, str]) -> str:
    module = step[0].partition(":")[0]
    return "dsl" if module.startswith("dsl") else ".".join(module.split(".")[:2])


def _short(words: str, most: int = 78) -> str:
    return words if len(words) <= most else words[: most - 1].rsplit(" ", 1)[0] + " …"


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
