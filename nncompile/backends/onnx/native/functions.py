"""Calls of native kernels, each with a function of the model that says what it computes.

A runtime that has the kernel runs it; any other one puts the function's nodes in its place. A
function has constants for what its op's lowering says of strides and axes, so that a kernel has
several of them: the second is called `NAME_2`. (Overloads of one name onnxruntime 1.23 takes for
the last one of them, and says nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from nncompile.ir.native import DOMAIN, Kernel

MOST = 32
"""The functions of one kernel in a file; the native library has so many names for each."""


class Functions:
    """The functions of one model, equal ones once."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._names: dict[bytes, str] = {}
        self._counts: dict[str, int] = {}
        self.protos: list[onnx.FunctionProto] = []

    def name(
        self,
        kernel: Kernel,
        inputs: Sequence[str],
        nodes: Sequence[onnx.NodeProto],
        outputs: Sequence[str],
    ) -> str | None:
        """The name of the function of those nodes, which compute `outputs` of `inputs`; None where
        the kernel has no more names."""
        function = helper.make_function(
            DOMAIN,
            kernel.name,
            inputs,
            outputs,
            nodes,
            [helper.make_opsetid("", self.opset)],
            sorted(kernel.attributes),
        )
        key = function.SerializeToString(deterministic=True)
        if key not in self._names:
            number = self._counts.get(kernel.name, 0) + 1
            if number > MOST:
                return None
            self._counts[kernel.name] = number
            function.name = kernel.name if number == 1 else f"{kernel.name}_{number}"
            self._names[key] = function.name
            self.protos.append(function)
        return self._names[key]

    @property
    def counts(self) -> str:
        """How many functions each kernel has, as the native library wants it: `Elementwise:3`."""
        return " ".join(f"{name}:{count}" for name, count in sorted(self._counts.items()))


def constant_nodes(constants: dict[str, Any]) -> list[onnx.NodeProto]:
    """The constants of a function, which has no other place for them than nodes."""
    return [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in constants.items()
    ]
