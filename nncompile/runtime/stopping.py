"""How a run of onnxruntime is ended from another thread."""

from __future__ import annotations

import threading

import onnxruntime as ort


class Stop:
    """Ends one run, whoever made it: onnxruntime looks at it before each operator, also inside of
    loops, and fails then. Whether the run or the stop came first is settled once: what a run did is
    undone if it was stopped before it said that it is done."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self._lock = threading.Lock()
        self._asked = self._done = False

    def ask(self) -> bool:
        """Ends the run; False where it is done already."""
        with self._lock:
            if self._done:
                return False
            self._asked = self.options.terminate = True
            return True

    @property
    def asked(self) -> bool:
        """Whether the run is to end."""
        return self._asked

    def done(self) -> bool:
        """Says that the run is done; False where it was to be stopped before that."""
        with self._lock:
            self._done = not self._asked
            return self._done
