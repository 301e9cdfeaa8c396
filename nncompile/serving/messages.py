"""Requests and responses of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nncompile.ir.types import Array
from nncompile.runtime.open_inference import DATATYPE_NAMES
from nncompile.serving.problems import RequestError
from nncompile.serving.tensors import (
    dtype_of,
    from_bytes,
    from_json,
    shape_of,
    to_json,
)

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that gives the length of the JSON in a body with tensors as bytes behind it."""


class Request(NamedTuple):
    """What a client asks for: tensors by input, and the outputs it wants (None: all of them), with
    whether as bytes."""

    id: str | None
    feeds: dict[str, Array]
    outputs: dict[str, bool] | None
    binary: bool


def parsed(body: bytes, header_length: str | None) -> Request:
    """The request in a body. Raises `RequestError` for one that is not of the protocol."""
    length = len(body)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not is_number or int(header_length) > len(body):
            raise RequestError(
                f"{HEADER_LENGTH} {header_length!r:.40} is not the length of the JSON "
                f"that a body of {len(body):,} bytes begins with"
            )
        length = int(header_length)
    message = _object(body[:length])
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(x, dict) for x in inputs):
        raise RequestError('the request has no "inputs", a list of objects')
    feeds, rest = {}, memoryview(body)[length:]
    for tensor in inputs:
        name, array, rest = _tensor(tensor, rest)
        if name in feeds:
            raise RequestError(f"input {name!r} is given twice")
        feeds[name] = array
    if rest:
        raise RequestError(
            f"{len(rest):,} bytes behind the JSON belong to no input",
            hint='"parameters": {"binary_data_size": ...} of an input says how many are its own',
        )
    identifier = message.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError('the "id" of the request is not text')
    binary = _parameters(message, "the request").get("binary_data_output") is True
    return Request(identifier, feeds, _outputs(message, binary), binary)


def response(model: str, request: Request, results: Mapping[str, Array]) -> tuple[bytes, int]:
    """The body of a response, and the length of the JSON that it begins with."""
    outputs, parts = [], []
    for name, array in results.items():
        described: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPE_NAMES[array.dtype],
            "shape": list(array.shape),
        }
        is_binary = request.binary if request.outputs is None else request.outputs[name]
        if is_binary:
            parts.append(np.ascontiguousarray(array).tobytes())
            described["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            described["data"] = to_json(array)
        outputs.append(described)
    message: dict[str, Any] = {"model_name": model}
    if request.id is not None:
        message["id"] = request.id
    header = json.dumps({**message, "outputs": outputs}).encode()
    return b"".join((header, *parts)), len(header)


def _object(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except RecursionError:
        raise RequestError("the request is not JSON: its lists are too deep") from None
    except ValueError as error:  # of the text, of its encoding, and of numbers without end
        raise RequestError(f"the request is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise RequestError('the request is not an object of JSON with "inputs"')
    return message


def _parameters(message: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = message.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(f'the "parameters" of {what} are not an object')
    for name in parameters:
        if name.startswith("shared_memory"):
            raise RequestError("shared memory is not supported", hint="send the tensors")
    return parameters


def _tensor(tensor: dict[str, Any], rest: memoryview) -> tuple[str, Array, memoryview]:
    """The name of an input, its tensor, and what follows of the bytes."""
    name = tensor.get("name")
    if not isinstance(name, str):
        raise RequestError('an input of the request has no "name"')
    what = f"input {name!r}"
    dtype = dtype_of(name, tensor.get("datatype"))
    shape = shape_of(name, tensor.get("shape"))
    size = _parameters(tensor, what).get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise RequestError(f'{what} has no "data"')
        return name, from_json(name, tensor["data"], dtype, shape), rest
    if type(size) is not int or size < 0:
        raise RequestError(f'the "binary_data_size" of {what} is not a number of bytes')
    if size > len(rest):
        raise RequestError(
            f"{what} has {size:,} bytes, but {len(rest):,} follow in the request",
            hint=f"{HEADER_LENGTH} gives the length of the JSON before them",
        )
    return name, from_bytes(name, bytes(rest[:size]), dtype, shape), rest[size:]


def _outputs(message: Mapping[str, Any], binary: bool) -> dict[str, bool] | None:
    outputs = message.get("outputs")
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list) or not all(
        isinstance(x, dict) and isinstance(x.get("name"), str) for x in outputs
    ):
        raise RequestError('the "outputs" of the request are not a list of objects with "name"')
    found = {}
    for output in outputs:
        parameters = _parameters(output, f"output {output['name']!r}")
        if parameters.get("classification"):
            raise RequestError("classifications are not supported", hint="take the output itself")
        found[output["name"]] = parameters.get("binary_data", binary) is True
    return found
