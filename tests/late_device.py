"""A device that computes as late as it may: what is handed over is computed when somebody waits for
it, of what then lies in the buffers that were bound. What is read without waiting is old, and what
is written over one that is still to be read gives another result."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from nncompile.runtime.ahead import AheadStepRunner
from nncompile.runtime.session import Session


class Later:
    """A result of which no size is known before it is computed."""

    value: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)


class LateBinding:
    """What is bound to a session."""

    def __init__(self, device: LateDevice) -> None:
        self._device = device
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.results: dict[str, Any] = {}

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Any) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, device: str, number: int = 0) -> None:
        self.outputs[name] = None

    def get_outputs(self) -> list[Any]:
        return [self.results[name] for name in self.outputs]

    def synchronize_outputs(self) -> None:
        self._device.finish()


class LateDevice:
    """A session on it."""

    _sess = None
    longest = 0  # how many runs waited at once
    in_a_row = longest_row = 0  # runs that came back at once, without one that did not

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._waiting: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> LateBinding:
        return LateBinding(self)

    def run_with_iobinding(self, binding: LateBinding, options: Any = None) -> None:
        results = {n: Later() if x is None else x for n, x in binding.outputs.items()}
        binding.results = results
        self._waiting.append((dict(binding.inputs), results))
        LateDevice.longest = max(LateDevice.longest, len(self._waiting))
        LateDevice.in_a_row += 1
        if options is None or not _goes_on(options):
            self.finish()
            LateDevice.in_a_row = 0
        LateDevice.longest_row = max(LateDevice.longest_row, LateDevice.in_a_row)

    def finish(self) -> None:
        """Computes what was handed over."""
        for inputs, results in self._waiting:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in results.items():
                if isinstance(value, Later):
                    binding.bind_output(name, "cpu")
                else:
                    binding.bind_ortvalue_output(name, value)
            self._session.run_with_iobinding(binding)
            for value, computed in zip(results.values(), binding.get_outputs(), strict=True):
                if isinstance(value, Later):
                    value.value = computed
        self._waiting = []


def _goes_on(options: ort.RunOptions) -> bool:
    """Whether a run with these options comes back at once."""
    try:
        return bool(options.get_run_config_entry("disable_synchronize_execution_providers") == "1")
    except RuntimeError:  # there is no such entry
        return False


class LateStepRunner(AheadStepRunner):
    """A runner of steps on such a device."""

    def _started(self, model: Any) -> tuple[Session, frozenset[str]]:
        session, shared = super()._started(model)
        session.onnxruntime = LateDevice(session.onnxruntime)  # type: ignore[assignment]  # as one
        return session, shared

    def _waits(self, session: Session) -> bool:
        return False
