"""Statements and how they are written out: names, what is written within what, comments."""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

# A statement's result within texts, until it has a name; in no Python source otherwise.
_TOKEN = re.compile("‹([0-9]+)›")
# Functions of functions.py that the source calls.
FUNCTIONS = ("convolution_weight_gradient", "convolution_weight_gradient_of_few")
_RESERVED = frozenset(
    {*keyword.kwlist, *dir(builtins), *FUNCTIONS}
    | {"self", "torch", "math", "scan", "Tensor", "Dict", "List"}
)
_WITHIN = 60  # longer expressions get a line of their own


@dataclass
class Statement:
    """`text` computes the result; `infix` if it needs parentheses within another operation.

    A result of a node keeps its line (`kept`); others are written where they are used, if that is
    one place. `depth` is the number of loops around it.
    """

    text: str
    infix: bool
    hint: str
    kept: bool = False
    comment: str = ""
    depth: int = 0


@dataclass
class Effect(Statement):
    """A line of its own without a result: a check."""


@dataclass
class Variable(Statement):
    """A name that a loop gives its values to."""


@dataclass
class Opening(Statement):
    """`for time in text:`, before which `variables` start at `initial`, and `lists` without rows.
    All but `initial` are tokens.

    As a call of torch's `scan` the body is the function `time` of `variables` and `taken`, the
    rows of the sequences `rows`, and gives the variables' last values and `lists`, stacked."""

    time: str = ""
    variables: list[str] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    scans: bool = False
    last: list[str] = field(default_factory=list)


@dataclass
class Closing(Statement):
    """The end of a loop's body: `rows` go to the lists, and the variables become `following`."""

    opening: Opening = field(default_factory=lambda: Opening("", False, ""))
    following: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)


def token(number: int) -> str:
    """What stands in texts for the result of statement `number`."""
    return f"‹{number}›"


def token_number(text: str) -> int | None:
    """The statement whose result the text is; None for other texts."""
    found = _TOKEN.fullmatch(text)
    return int(found[1]) if found else None


class Names:
    """Names for local variables: identifiers that are free and mean nothing else."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def claim(self, hint: str) -> str:
        """A name like `hint`: `a.dense` becomes `a_dense`, the second one `a_dense_2`."""
        name = re.sub(r"\W+", "_", hint, flags=re.ASCII).strip("_") or "value"
        if name[0].isdigit():
            name = f"_{name}"
        if name in _RESERVED:
            name = f"{name}_"
        free, count = name, 1
        while free in self._used:
            count += 1
            free = f"{name}_{count}"
        self._used.add(free)
        return free


def lines(statements: list[Statement], results: Iterable[str], names: Names) -> list[str]:
    """The statements that `results` (texts) need as lines, those in loops indented, and `results`
    with names in them behind these, one a line."""
    final = list(results)
    writer = _Writer(statements, names)
    uses = _uses(statements, final)
    for number, statement in enumerate(statements):
        if uses[number] and not isinstance(statement, Variable):
            writer.add(number, statement, uses[number])
    return writer.written + [writer.resolved(text) for text in final]


class _Writer:
    """Writes statements as lines."""

    def __init__(self, statements: list[Statement], names: Names) -> None:
        self.statements, self.names = statements, names
        self.within: dict[int, Statement] = {}  # written where it is used
        self.named: dict[int, str] = {}
        self.written: list[str] = []

    def add(self, number: int, statement: Statement, uses: int) -> None:
        """Writes a statement that is used, or keeps it for where it is."""
        if isinstance(statement, Opening):
            return self.open_loop(statement)
        if isinstance(statement, Closing):
            return self.close_loop(statement)
        text = self.resolved(statement.text)
        if isinstance(statement, Effect):
            return self.write(statement.depth, text)
        if not statement.kept and uses == 1 and len(text) <= _WITHIN:
            self.within[number] = Statement(text, statement.infix, statement.hint)
            return None
        comment = f"  # {statement.comment}" if statement.comment else ""
        return self.write(statement.depth, f"{self.name(number)} = {text}{comment}")

    def resolved(self, text: str) -> str:
        def put(found: re.Match[str]) -> str:
            number = int(found[1])
            if number in self.named:
                return self.named[number]
            inner = self.within[number]
            if not inner.infix or _is_delimited(text, found.start(), found.end()):
                return inner.text
            return f"({inner.text})"

        return _TOKEN.sub(put, text)

    def write(self, depth: int, text: str) -> None:
        self.written.append("    " * depth + text)

    def name(self, number: int) -> str:
        if number not in self.named:
            self.named[number] = self.names.claim(self.statements[number].hint)
        return self.named[number]

    def named_all(self, tokens: Iterable[str]) -> list[str]:
        return [self.name(n) for x in tokens if (n := token_number(x)) is not None]

    def open_scan(self, loop: Opening) -> None:
        (function,) = self.named_all([loop.time])
        self.write(loop.depth, f"def {function}(carried: List[Tensor], rows: List[Tensor]):")
        for source, tokens in (("carried", loop.variables), ("rows", loop.taken)):
            if tokens:
                self.write(loop.depth + 1, f"[{', '.join(self.named_all(tokens))}] = {source}")

    def close_scan(self, loop: Closing) -> None:
        # What goes in and what comes out of torch's scan must not share memory.
        own = ".clone(memory_format=torch.contiguous_format)"
        opening = loop.opening

        def each(texts: Iterable[str]) -> str:
            return ", ".join(f"{_operand(self.resolved(x))}{own}" for x in texts)

        self.write(opening.depth + 1, f"return [{each(loop.following)}], [{each(loop.rows)}]")
        results = [", ".join(self.named_all(x)) for x in (opening.last, opening.lists)]
        (function,) = self.named_all([opening.time])
        sequences = ", ".join(self.resolved(x) for x in opening.rows)
        self.write(
            opening.depth,
            f"[{results[0]}], [{results[1]}] = scan({function}, [{each(opening.initial)}], "
            f"[{sequences}], reverse={self.resolved(opening.text)})",
        )

    def open_loop(self, loop: Opening) -> None:
        if loop.scans:
            return self.open_scan(loop)
        claimed = self.named_all((*loop.variables, *loop.lists, loop.time))
        starts = (*map(self.resolved, loop.initial), *("[]" for _ in loop.lists))
        for variable, start in zip(claimed, starts, strict=False):
            self.write(loop.depth, f"{variable} = {start}")
        self.write(loop.depth, f"for {claimed[-1]} in {self.resolved(loop.text)}:")

    def close_loop(self, loop: Closing) -> None:
        if loop.opening.scans:
            return self.close_scan(loop)
        for rows, row in zip(loop.opening.lists, loop.rows, strict=True):
            self.write(loop.depth, f"{self.resolved(rows)}.append({self.resolved(row)})")
        if loop.following:  # all at once: one may need what another was
            targets = ", ".join(map(self.resolved, loop.opening.variables))
            self.write(loop.depth, f"{targets} = {', '.join(map(self.resolved, loop.following))}")


def _uses(statements: list[Statement], final: list[str]) -> Counter[int]:
    """How often the result of each statement is used, by what is needed itself. Use in a loop that
    the statement is not in counts as several."""
    uses: Counter[int] = Counter()
    numbers = {id(statement): number for number, statement in enumerate(statements)}

    def use(texts: Iterable[str], depth: int) -> None:
        for text in texts:
            for found in _TOKEN.findall(text):
                number = int(found)
                uses[number] += 1 + (statements[number].depth < depth)

    use(final, 0)
    for number in reversed(range(len(statements))):
        statement = statements[number]
        if isinstance(statement, Effect):
            uses[number] = 1
        if isinstance(statement, Closing):
            loop = statement.opening
            tokens = (*loop.variables, *loop.lists, *loop.last)
            if any(uses[n] for x in tokens if (n := token_number(x)) is not None):
                uses[number] = uses[numbers[id(loop)]] = 1
        if uses[number]:
            use([statement.text], statement.depth)
            if isinstance(statement, Opening):
                use((*statement.initial, *statement.rows), statement.depth)
    return uses


def _operand(text: str) -> str:
    """The text as what a method can be called on."""
    return text if text.isidentifier() else f"({text})"


def _is_delimited(text: str, start: int, end: int) -> bool:
    """Whether what stands there is a whole argument, element or statement."""
    before, after = text[:start], text[end:]
    opened = before == "" or before.endswith(("(", "[", "{", ", ", ": "))
    opened = opened or re.search(r"[\w]=$", before) is not None
    return opened and (after == "" or after[0] in ")]},")
