"""What of a file cannot be imported: all of it in one message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.types import Type

_SHOWN = 40  # rows of a message
_LONGEST = 300  # characters of a name or a reason


class Refused(Exception):
    """A node that cannot be imported: why, and the tensor that would have to be known."""

    def __init__(self, reason: str, needs: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.needs = needs


@dataclass(frozen=True)
class Refusal:
    """One node of a file that is refused."""

    op: str
    version: int
    dtypes: tuple[str, ...]
    node: str
    reason: str
    needs: str | None = None
    cause: Exception | None = field(default=None, compare=False, repr=False)  # unless `Refused`
    is_fault: bool = False  # of nncompile, and not of the file

    @property
    def row(self) -> tuple[str, ...]:
        """As a row of the message: op and version, element types, node, reason."""
        op = f"{self.op}-{self.version}" if self.version else self.op  # or an input, an output
        cells = op, ",".join(self.dtypes), self.node, self.reason
        return tuple(c if len(c) <= _LONGEST else f"{c[:_LONGEST]}…" for c in cells)


def unfit(error: Exception, node: onnx.NodeProto) -> str:
    """What of a node does not fit, where Python or numpy found it: numpy's words, which tell shapes
    and axes, and else the attributes."""
    text = str(error)
    if isinstance(error, MemoryError | RecursionError | OverflowError):
        return f"its inputs or attributes ask for too much: {type(error).__name__} {text}".rstrip()
    given = [f"{a.name} {_plain(a)}" for a in node.attribute if _plain(a) is not None]
    what = f"its attributes {', '.join(given)}" if given else "the operator"
    what = f"its inputs do not fit {what}"
    is_told = isinstance(error, ValueError) and not _OF_PYTHON.match(text)
    return f"{what}: {text}" if is_told else what


_OF_PYTHON = re.compile(r"zip\(|range\(|not enough values|too many values|m(ax|in)\(")


def _plain(attribute: onnx.AttributeProto) -> Any:
    """The value of an attribute of numbers or words."""
    kinds = onnx.AttributeProto
    value = {
        kinds.INT: attribute.i,
        kinds.FLOAT: attribute.f,
        kinds.STRING: attribute.s.decode("utf-8", "replace"),
        kinds.INTS: list(attribute.ints),
        kinds.FLOATS: list(attribute.floats),
    }
    return None if attribute.ref_attr_name else value.get(attribute.type)


class ImportRefused(BackendError):
    """A file with nodes that cannot be imported; `refusals` are all of them, `inputs` the types of
    what the file is fed."""

    most_rows = None

    def __init__(
        self, file: str, refusals: Sequence[Refusal], inputs: Mapping[str, Type] = {}
    ) -> None:
        self.refusals = tuple(refusals)
        self.inputs = inputs
        rows = [r.row for r in refusals[:_SHOWN]]
        if len(refusals) > _SHOWN:
            rows.append((f"and {len(refusals) - _SHOWN} more", "", "", ""))
        count = "1 node" if len(refusals) == 1 else f"{len(refusals)} nodes"
        hint = None
        if any(r.is_fault for r in refusals):
            hint = "report the fault of nncompile, with the file or the node"
        elif any("cannot tell whether" in r.reason for r in refusals):
            hint = 'sizes={"a": "b"} says that two names of sizes are one'
        elif any(r.needs for r in refusals):
            hint = "static={name: size} fixes a size; outputs=[...] cuts the model before a node"
        super().__init__(f"{file}: {count} cannot be imported", rows=rows, hint=hint)
        causes = [r.cause for r in refusals if r.cause is not None]
        faults = [r.cause for r in refusals if r.is_fault]
        self.__cause__ = next(iter(faults or causes), None)  # so that its traceback is not lost
