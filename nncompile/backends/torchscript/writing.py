"""The source as a tree of statements, and how it is written: what is needed or stands within what,
names, comments."""

from __future__ import annotations

import ast
import builtins
import functools
import keyword
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.printable import printable

MARK = "ρ"
"""Begins the name of a result until it gets its own; other names in the source are ASCII."""

# Functions of functions.py that the source calls.
FUNCTIONS = ("convolution_weight_gradient", "convolution_weight_gradient_of_few")
_RESERVED = frozenset(
    {*keyword.kwlist, *dir(builtins), *FUNCTIONS}
    | {"self", "torch", "math", "scan", "Tensor", "Dict", "List"}
)
_ESCAPES = {
    **{chr(code): f"\\{code:03o}" for code in (*range(32), 0x7F)},
    **{"\\": "\\\\", '"': '\\"', "\n": "\\n"},
}
_WITHIN = 60  # longer expressions get a line of their own


@dataclass
class Line:
    """A statement that is written whether anything needs it or not."""

    text: str


@dataclass(slots=True)
class Variable:
    """A name for what is computed within `depth` loops, or what a loop gives its values to.

    A result of a node keeps its line (`kept`); others are written where they are used, if that is
    one place.
    """

    hint: str
    depth: int
    kept: bool = False
    comment: str = ""


@dataclass(slots=True)
class Result(Variable):
    """What `text` computes, and stands as `token` in other lines: `make` gives its tree, from
    those of `parts`."""

    _: KW_ONLY
    token: str
    text: str
    parts: Sequence[str]
    make: Callable[..., ast.expr]


@dataclass
class Block(Line):
    """`text`, as `for x in y: ...`, and the statements in it, behind comments; none of it if
    nothing in it is written. What is `repeated` is the body of a loop."""

    body: Sequence[Statement]
    comments: Sequence[str] = ()
    repeated: bool = False


@dataclass
class Group:
    """Statements that are needed together, for any of the variables that they give."""

    variables: Sequence[str]
    body: Sequence[Statement]


Statement = Line | Result | Group


@dataclass
class Names:
    """Names for local variables: identifiers that are free and mean nothing else."""

    _used: dict[str, int] = field(default_factory=dict)

    def claim(self, hint: str) -> str:
        """A name like `hint`: `a.dense` becomes `a_dense`, the second one `a_dense_2`."""
        if not (hint.isascii() and hint.isidentifier()):
            letters = (c if c == "_" or (c.isascii() and c.isalnum()) else " " for c in hint)
            hint = "_".join("".join(letters).split())
        name = hint.strip("_") or "value"
        if name[0].isdigit():
            name = f"_{name}"
        if name in _RESERVED:
            name = f"{name}_"
        free, count = name, self._used.get(name, 0)
        while free in self._used:
            count += 1
            free = f"{name}_{count}"
        self._used[name] = count
        self._used[free] = 1
        return free


def written(statements: Sequence[Statement], results: Mapping[str, Variable], names: Names) -> str:
    """The statements as source, without what nothing needs."""
    writer = _Writer(results, names)
    writer.count(statements, 0)
    writer.write(statements, 0)
    return "\n".join([*writer.lines, ""])


def quoted(text: str) -> str:
    """The text as a literal of the source, of escapes that both Python and torch know."""
    return f'"{"".join(_ESCAPES.get(c, c) for c in text)}"'


def comment(text: str) -> str:
    """The text as a comment of one line: what ends a line, for Python or for torch, is shown as an
    escape."""
    return f"# {printable(' '.join(text.split(chr(10))))}".rstrip()


def parsed(text: str) -> Any:
    """The tree of a statement. Raises `BackendError` for text that is not one."""
    try:
        return ast.parse(text).body[0]
    except SyntaxError as error:
        raise BackendError(f"not a statement of TorchScript: {text}") from error


@functools.lru_cache(maxsize=1024)
def _constant(text: str) -> ast.expr:
    """The tree of an expression without results, which nothing changes. Names, dotted ones too,
    are one leaf."""
    if text.replace(".", "").isidentifier():
        return ast.Name(text)
    tree: ast.expr = _Placing(ast.Name).visit(parsed(text)).value
    return tree


class _Placing(ast.NodeTransformer):
    """Puts names, or what is written within, in place of results."""

    def __init__(self, place: Callable[[str], ast.expr]) -> None:
        self.place = place

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.place(node.id) if node.id[0] == MARK else node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        # torch knows other escapes than Python.
        return ast.Name(quoted(node.value)) if isinstance(node.value, str) else node


class _Writer:
    """Counts what is used, and writes it as lines."""

    def __init__(self, results: Mapping[str, Variable], names: Names) -> None:
        self.results, self.names = results, names
        self.uses: Counter[str] = Counter()
        self.within: dict[str, tuple[ast.expr, int]] = {}  # written where it is used
        self.named: dict[str, str] = {}
        self.lines: list[str] = []
        self.width = 0  # of the line that is made, about
        self.placing = _Placing(self.place)

    def count(self, statements: Sequence[Statement], depth: int) -> None:
        """Counts how often each result is used by what is needed itself. Use in a loop that the
        result is not computed in counts as several."""
        for statement in reversed(statements):
            if isinstance(statement, Group):
                if self.is_needed(statement):
                    self.count(statement.body, depth)
                continue
            if isinstance(statement, Block):
                self.count(statement.body, depth + statement.repeated)
            if not isinstance(statement, Result):
                self.use(statement.text, depth)
            elif self.uses[statement.token]:
                for part in statement.parts:
                    self.use(part, depth)

    def use(self, text: str, depth: int) -> None:
        if text in self.results:
            self.uses[text] += 1 + (self.results[text].depth < depth)
        elif MARK in text:
            for node in ast.walk(parsed(text)):
                if isinstance(node, ast.Name) and node.id[0] == MARK:
                    self.use(node.id, depth)

    def is_needed(self, group: Group) -> bool:
        return any(self.uses[name] for name in group.variables)

    def write(self, statements: Sequence[Statement], indent: int) -> None:
        """Writes the statements that are needed."""
        for statement in statements:
            if isinstance(statement, Result):
                if self.uses[statement.token]:
                    self.write_result(statement, indent)
            elif isinstance(statement, Block):
                self.write_block(statement, indent)
            elif isinstance(statement, Line):
                self.line(indent, _printed(self.placing.visit(parsed(statement.text))))
            elif self.is_needed(statement):
                self.write(statement.body, indent)

    def write_block(self, block: Block, indent: int) -> None:
        head = parsed(block.text)
        if isinstance(head, ast.FunctionDef) and head.name[0] == MARK:
            head.name = self.name(head.name)
        head.body = []
        self.line(indent, _printed(self.placing.visit(head)))
        before = len(self.lines)
        for text in block.comments:
            self.line(indent + 1, comment(text))
        self.write(block.body, indent + 1)
        if len(self.lines) == before:
            self.lines.pop()

    def write_result(self, result: Result, indent: int) -> None:
        """Writes a result that is used, or keeps it for where it is."""
        self.width = len(result.text)
        tree = result.make(*map(self.tree, result.parts))
        if not result.kept and self.uses[result.token] == 1 and self.width <= _WITHIN:
            self.within[result.token] = tree, self.width
            return
        behind = f"  {comment(result.comment)}" if result.comment else ""
        self.line(indent, f"{self.name(result.token)} = {ast.unparse(tree)}{behind}")

    def line(self, indent: int, text: str) -> None:
        self.lines.extend("    " * indent + line for line in text.split("\n"))

    def tree(self, text: str) -> ast.expr:
        """The tree of an expression."""
        if text in self.results:
            return self.place(text)
        if MARK not in text:
            return _constant(text)
        tree: ast.expr = self.placing.visit(parsed(text)).value
        return tree

    def place(self, token: str) -> ast.expr:
        """What stands in place of a result."""
        if token in self.within:
            tree, width = self.within[token]
        else:
            name = self.name(token)
            tree, width = ast.Name(name), len(name)
        self.width += width - len(token)
        return tree

    def name(self, token: str) -> str:
        if token not in self.named:
            self.named[token] = self.names.claim(self.results[token].hint)
        return self.named[token]


def _printed(tree: ast.stmt) -> str:
    """A statement as source: a dict that is returned has a line for each entry."""
    if not (isinstance(tree, ast.Return) and isinstance(tree.value, ast.Dict)):
        return ast.unparse(tree).strip()
    entries = zip(tree.value.keys, tree.value.values, strict=True)
    lines = (f"    {ast.unparse(key)}: {ast.unparse(value)}" for key, value in entries if key)
    return "\n".join(["return {", ",\n".join(lines), "}"])
