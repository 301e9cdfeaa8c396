"""A gradient half in one session, which reads the state where it lies and writes gradients where
they are reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nncompile.ir.types import Array
from nncompile.runtime.batch_inputs import BatchInputs
from nncompile.runtime.buffers import array_of, give_back
from nncompile.runtime.session import RUN_ERRORS, Session

State = Mapping[str, Any]


class BoundHalf:
    """Runs a session on one of several `states`, which are buffers by name; outputs that are in
    `direct` are written there."""

    def __init__(
        self, session: Session, states: Sequence[State], direct: Mapping[str, Array]
    ) -> None:
        self._session, self._states, self._direct = session, states, direct
        self._bindings = tuple(map(self._bound, states))
        self._runs = tuple(map(session.runner, self._bindings))
        self._inputs: BatchInputs | None = None
        ports = session.outputs
        self._free = [p.name for p in ports if p.name not in direct and not p.is_static]
        self._order = [p.name for p in ports]

    def run(self, side: int, shard: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that are not written to their place, of those rows and of the state of that
        number."""
        inputs = self._inputs
        is_first = inputs is None or not inputs.fed(shard, side)
        if is_first:
            about = self._session, self._bindings, self._states, self._device
            inputs = self._inputs = BatchInputs(shard, *about)
            inputs.fed(shard, side)
        binding = self._bindings[side]
        for name in self._free:  # or an output keeps the sizes of the first run
            binding.bind_output(name, "cpu")
        try:
            if is_first:
                give_back()
                self._session.run_first(binding)
            else:
                self._runs[side]()
        except RUN_ERRORS as error:
            raise self._session.failure(error, shard) from error
        results = dict(zip(self._order, binding.get_outputs(), strict=True))
        return {n: array_of(x) for n, x in results.items() if n not in self._direct}

    def _device(self, name: str) -> tuple[str, int]:
        return self._session.device_of_input(name) or self._session.device

    def _bound(self, state: State) -> Any:
        binding = self._session.onnxruntime.io_binding()
        for port in self._session.inputs:
            if port.name in state:
                binding.bind_ortvalue_input(port.name, state[port.name])
        for port in self._session.outputs:
            view = self._direct.get(port.name)
            if view is None:
                binding.bind_output(port.name, "cpu")
            else:
                place = view.ctypes.data
                binding.bind_output(port.name, "cpu", 0, view.dtype, view.shape, place)
        return binding
