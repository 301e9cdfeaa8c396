"""Changed files: each function makes other bytes of those of a valid file."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import onnx

Random = random.Random
Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (
    "-1", "0", "1", "2", "3", "7", "4294967295", "9223372036854775807", "18446744073709551616",
    "1000000000000", "1e999", "null", "true", '""', "[]", "{}", "NaN", "9" * 5000,
)  # fmt: skip
TEXTS = (
    "", "\0", "a\rb", "a\nb", "../x", "../../x", "/tmp/x", "..\\x", ".", "\x1b[2J", "ü" * 300,
    "F64", "BF16", "I8", "<U8", "|O", "x" * 70000, "\\ud800", "file", "None", "%s{}", "a" * 300,
)  # fmt: skip
FIELDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63)


def flipped(r: Random, content: bytes) -> bytes:
    """Some bits are others; often in the beginning or the end, where headers are."""
    changed = bytearray(content)
    for _ in range(r.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[_position(r, len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def cut(r: Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: r.randrange(len(content) + 1)]


def longer(r: Random, content: bytes) -> bytes:
    """Bytes are put in, or a part is there twice."""
    at = _position(r, len(content) + 1)
    start = r.randrange(len(content) + 1)
    added = r.choice((r.randbytes(r.choice((1, 2, 8, 100))), content[start : start + 200]))
    return content[:at] + added + content[at:]


def shorter(r: Random, content: bytes) -> bytes:
    """A part is missing."""
    at = _position(r, len(content) + 1)
    return content[:at] + content[at + r.choice((1, 2, 8, 100)) :]


def extreme(r: Random, content: bytes) -> bytes:
    """A field of 1 to 8 bytes has an extreme number."""
    size = r.choice((1, 2, 4, 8))
    at = _position(r, max(len(content) - size, 0) + 1)
    number = r.choice(FIELDS) % 256**size
    return content[:at] + number.to_bytes(size, r.choice(("little", "big"))) + content[at + size :]


def renumbered(r: Random, content: bytes) -> bytes:
    """A number in a text is another thing."""
    found = list(re.finditer(rb"\d+", content[:20000]))
    if not found:
        return flipped(r, content)
    match = r.choice(found)
    return content[: match.start()] + r.choice(NUMBERS).encode() + content[match.end() :]


def renamed(r: Random, content: bytes) -> bytes:
    """A quoted text is another one."""
    found = list(re.finditer(rb"(['\"])([^'\"\n]{1,80})\1", content[:20000]))
    if not found:
        return longer(r, content)
    match = r.choice(found)
    text = r.choice(TEXTS).encode("utf-8")
    return content[: match.start(2)] + text + content[match.end(2) :]


def rezipped(r: Random, content: bytes) -> bytes:
    """An archive with a member that is changed, missing, there twice, or called otherwise; its
    sums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:
        return flipped(r, content)
    if not members:
        return flipped(r, content)
    at = r.randrange(len(members))
    name, inner = members[at]
    kind = r.randrange(5)
    if kind == 0:
        members[at] = name, r.choice(PLAIN)(r, inner)
    elif kind == 1:
        members[at] = r.choice(TEXTS) or "x", inner
    elif kind == 2:
        members.append((name, r.choice(PLAIN)(r, inner)))
    elif kind == 3:
        del members[at]
    else:
        members[at] = name.replace(name.rpartition("/")[2], r.choice(TEXTS) or "x"), inner
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        method = r.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, inner in members:
                # A NUL ends a name, and one without letters cannot be written.
                archive.writestr(name.partition("\0")[0][:60000] or "x", inner)
    return buffer.getvalue()


def reheaded(r: Random, content: bytes) -> bytes:
    """A safetensors file whose header is changed, with the length that it then has."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
    except (ValueError, struct.error):
        return flipped(r, content)
    for _ in range(r.choice((1, 1, 3))):
        header = changed_json(r, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def restructured(r: Random, content: bytes) -> bytes:
    """JSON of which some part is another."""
    try:
        return json.dumps(changed_json(r, json.loads(content))).encode()
    except ValueError:
        return flipped(r, content)


def changed_json(r: Random, x: Any) -> Any:
    """Some part is another value, or has another name."""
    if isinstance(x, dict) and x and r.random() < 0.9:
        key = r.choice(list(x))
        if r.random() < 0.25:
            return {(r.choice(TEXTS) if k == key else k): v for k, v in x.items()}
        if r.random() < 0.1:
            return {k: v for k, v in x.items() if k != key}
        return {k: changed_json(r, v) if k == key else v for k, v in x.items()}
    if isinstance(x, list) and x and r.random() < 0.8:
        at = r.randrange(len(x))
        return [*x[:at], changed_json(r, x[at]), *x[at + 1 :]]
    if isinstance(x, str) and x[:1] in "{[" and r.random() < 0.8:
        try:
            return json.dumps(changed_json(r, json.loads(x)))
        except ValueError:
            return x[:-1]
    values = (*TEXTS, None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1.5, [], [1], {}, [[]], "3")
    return r.choice(values)


def reassembled(r: Random, content: bytes) -> bytes:
    """An ONNX model with a field of some message that has another value."""
    try:
        proto = onnx.ModelProto.FromString(content)
    except Exception:
        return flipped(r, content)
    for _ in range(r.choice((1, 1, 2, 5))):
        _change_message(r, proto)
    try:
        return bytes(proto.SerializeToString())
    except Exception:
        return flipped(r, content)


def _change_message(r: Random, message: Any) -> None:
    while True:
        fields = message.ListFields()
        if not fields:
            return
        field, value = r.choice(fields)
        repeated = hasattr(value, "append") or hasattr(value, "add")
        inner = field.message_type is not None
        if inner:
            if not repeated:
                message = value
            elif r.random() < 0.15:
                if r.random() < 0.5:
                    del value[r.randrange(len(value))]
                else:
                    value.add().CopyFrom(r.choice(list(value)))
                return
            else:
                message = r.choice(list(value))
            continue
        old = value[0] if repeated else value
        new: Any = r.choice((0, 1, -1, 2, 7, 16, 2**31 - 1, -(2**31), 2**40, 2**63 - 1))
        if isinstance(old, str):
            new = r.choice((*TEXTS, "Loop", "If", "Conv", "Reshape", "Identity", "com.microsoft"))
        elif isinstance(old, bytes):
            new = r.choice(PLAIN)(r, old)
        elif isinstance(old, float):
            new = r.choice((0.0, float("nan"), float("inf"), -1e30))
        try:
            if repeated:
                value[r.randrange(len(value))] = new
            else:
                setattr(message, field.name, new)
        except (ValueError, TypeError):
            message.ClearField(field.name)
        return


def replaced(r: Random, content: bytes) -> bytes:
    """Another file altogether."""
    return r.choice(
        (b"", b"\0" * 100, r.randbytes(300), b"hello\n", b"{}", b"PK\x05\x06" + bytes(18))
    )


def _position(r: Random, length: int) -> int:
    if length <= 0:
        return 0
    where = r.random()
    if where < 0.4:
        return r.randrange(min(length, 200))
    if where < 0.55:
        return length - 1 - r.randrange(min(length, 200))
    return r.randrange(length)


PLAIN: tuple[Mutation, ...] = (
    flipped, cut, longer, shorter, extreme, renumbered, renamed, replaced,
)  # fmt: skip
BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".npz": (*PLAIN, rezipped, rezipped, rezipped),
    ".pt": (*PLAIN, rezipped, rezipped, rezipped, rezipped),
    ".pt2": (*PLAIN, rezipped, rezipped, rezipped, rezipped),
    ".safetensors": (*PLAIN, *(reheaded,) * 8),
    ".onnx": (*PLAIN, *(reassembled,) * 8),
    ".parquet": (*PLAIN, flipped, extreme, flipped, extreme),
    ".feather": (*PLAIN, flipped, extreme, flipped, extreme),
    ".json": (*PLAIN, *(restructured,) * 8),
    ".py": (renumbered, renamed, flipped, cut, longer, shorter, replaced),
}


def mutated(r: Random, suffix: str, content: bytes, others: list[bytes]) -> bytes:
    """The content of a file of that kind, changed in one way or two; seldom the end of another."""
    if others and r.random() < 0.05:
        other = r.choice(others)
        at = r.randrange(len(content) + 1)
        return content[:at] + other[r.randrange(len(other) + 1) :]
    for _ in range(r.choice((1, 1, 1, 2))):
        content = r.choice(BY_SUFFIX.get(suffix, PLAIN))(r, content)
    return content
