"""Statements and how they are written out: names, what is written within what, comments."""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# A statement's result within texts, until it has a name; in no Python source otherwise.
_TOKEN = re.compile("‹([0-9]+)›")
_RESERVED = frozenset(
    {*keyword.kwlist, *dir(builtins), "self", "torch", "math", "Tensor", "Dict", "List", "Tuple"}
)
_WITHIN = 60  # longer expressions get a line of their own


@dataclass
class Statement:
    """`text` computes the result; `infix` if it needs parentheses within another operation.

    A result of a node keeps its line (`kept`); others are written where they are used, if that is
    one place.
    """

    text: str
    infix: bool
    hint: str
    kept: bool = False
    comment: str = ""


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
    """The statements that `results` (texts) need as lines, and `results` with names in them
    behind these, one a line."""
    final = list(results)
    uses = _uses(statements, final)
    within: dict[int, Statement] = {}  # written where it is used
    named: dict[int, str] = {}

    def resolved(text: str) -> str:
        def put(found: re.Match[str]) -> str:
            number = int(found[1])
            if number in named:
                return named[number]
            inner = within[number]
            if not inner.infix or _is_delimited(text, found.start(), found.end()):
                return inner.text
            return f"({inner.text})"

        return _TOKEN.sub(put, text)

    written: list[str] = []
    for number, statement in enumerate(statements):
        if not uses[number]:
            continue
        text = resolved(statement.text)
        if not statement.kept and uses[number] == 1 and len(text) <= _WITHIN:
            within[number] = Statement(text, statement.infix, statement.hint)
            continue
        named[number] = names.claim(statement.hint)
        comment = f"  # {statement.comment}" if statement.comment else ""
        written.append(f"{named[number]} = {text}{comment}")
    return written + [resolved(text) for text in final]


def _uses(statements: list[Statement], final: list[str]) -> Counter[int]:
    """How often the result of each statement is used, by what is needed itself."""
    uses: Counter[int] = Counter()
    for text in final:
        uses.update(map(int, _TOKEN.findall(text)))
    for number in reversed(range(len(statements))):
        if uses[number]:
            uses.update(map(int, _TOKEN.findall(statements[number].text)))
    return uses


def _is_delimited(text: str, start: int, end: int) -> bool:
    """Whether what stands there is a whole argument, element or statement."""
    before, after = text[:start], text[end:]
    opened = before == "" or before.endswith(("(", "[", "{", ", ", ": "))
    opened = opened or re.search(r"[\w]=$", before) is not None
    return opened and (after == "" or after[0] in ")]},")
