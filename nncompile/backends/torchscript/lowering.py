"""Lowers a graph to the source of a TorchScript `forward`, a statement a node."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from typing import Any

from nncompile.backends.torchscript.emitter import Emitter
from nncompile.backends.torchscript.sizes import origins
from nncompile.backends.torchscript.writing import Names, lines, token_number
from nncompile.graph import Graph, Input, Value
from nncompile.types import Array, u32


@dataclass(frozen=True)
class Lowered:
    """The source of `forward`, and the constants that it takes from the module."""

    source: str
    constants: dict[str, Array]


def lower(graph: Graph) -> Lowered:
    """The graph as source: a method that takes its inputs in order and returns its outputs by
    name, with parameters and states as attributes of the module under their paths."""
    names = Names()
    texts: dict[str, str] = {}
    arguments = ["self"]
    for name, leaf in graph.leaves.items():
        if leaf.op.kind == "input":  # type: ignore[attr-defined]
            texts[name] = names.claim(name)
            arguments.append(f"{texts[name]}: Tensor")
        else:
            texts[name] = attribute_text(name)
    shapes = {texts[name]: leaf.shape for name, leaf in graph.leaves.items()}
    t = Emitter(next(iter(texts.values()), None), origins(shapes))
    results: dict[Value, Any] = {}
    for name, leaf in graph.leaves.items():
        carried = leaf.dtype is u32
        results[leaf] = t.method(texts[name], "to", u32) if carried else texts[name]
    outputs = {v: name for name, v in reversed(list(graph.outputs.items()))}
    for v in graph.nodes:
        if v in results:
            continue
        t.types, t.type = tuple(a.type for a in v.args), v.type
        with graph.trace.located(v):  # errors are told at the user's line
            results[v] = v.op.torch(t, *(results[a] for a in v.args))
        if v.args or v in outputs:
            _keep(t, results[v], outputs.get(v), v, graph)
    final = {name: _given(t, results[v], v) for name, v in graph.outputs.items()}
    written = lines(t.statements, final.values(), names)
    body = written[: len(written) - len(final)]
    returned = dict(zip(final, written[len(body) :], strict=True))
    return Lowered(_function(graph, arguments, body, returned), t.constants)


def attribute_text(path: str) -> str:
    """The attribute of the module under a dotted path: `self.stem.weight`; components that are no
    names in Python are looked up by text."""
    text = "self"
    for part in path.split("."):
        plain = part.isascii() and part.isidentifier() and not keyword.iskeyword(part)
        text = f"{text}.{part}" if plain else f"getattr({text}, {_quoted(part)})"
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _keep(t: Emitter, result: Any, output: str | None, v: Value, graph: Graph) -> None:
    """Gives a node's result its own line, named after the output, the parameter, the layer or
    what computes it."""
    for i, text in enumerate(result if isinstance(result, tuple) else (result,)):
        number = token_number(text)
        if number is None:
            continue
        statement = t.statements[number]
        if not statement.kept:
            stem = _stem(v, graph) or statement.hint
            statement.hint = f"{stem}_{i}" if isinstance(result, tuple) else stem
            statement.comment = _comment(v, graph)
            statement.kept = True
        if output is not None:
            statement.hint = output


def _stem(v: Value, graph: Graph) -> str:
    """The path of the node's parameter, or else of the layer that it was written in."""
    for leaf in v.args:
        if isinstance(leaf.op, Input) and leaf.op.kind == "parameter" and "." in leaf.op.name:
            return leaf.op.name.rpartition(".")[0]
    site = graph.trace.site(v)
    if site is None:
        return ""
    whole, _, rest = site.scope.partition("/")  # the model's own name says nothing here
    return rest if whole == graph.name else site.scope


def _comment(v: Value, graph: Graph) -> str:
    """The user's line: `digits.py:22  stem`."""
    site = graph.trace.site(v)
    return " ".join(f"{site.place}  {site.scope}".split("\n")).rstrip() if site else ""


def _given(t: Emitter, text: str, v: Value) -> str:
    """An output in its declared type."""
    return t.method(text, "to", "torch.uint32") if v.dtype is u32 else text


def _function(graph: Graph, arguments: list[str], body: list[str], returned: dict[str, str]) -> str:
    leaves = [f"# {leaf.op.kind} {name}: {leaf.type}" for name, leaf in graph.leaves.items()]  # type: ignore[attr-defined]
    doc = [f"# {line}".rstrip() for line in graph.doc.splitlines()]
    entries = [f"    {_quoted(name)}: {text}," for name, text in returned.items()]
    if entries:
        entries[-1] = entries[-1][:-1]  # TorchScript takes no comma before the brace
    inner = [*doc, *leaves, *body, "return {", *entries, "}"]
    head = f"def forward({', '.join(arguments)}) -> Dict[str, Tensor]:"
    return "\n".join([head, *(f"    {line}".rstrip() for line in inner), ""])
