"""What the native kernels of recurrent sequences compute, in numpy: see kernels/source/recurrent.h.

Arrays have the names that the kernels know them by: `rows` is x·W of all steps, `h0` the first
state, `h_before` and `h_after` that before and after each step, `d_…` a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Kind:
    """A kind of cell: the name of its kernel, how wide its rows are, the parts of its state, and
    what the kernel of its gradient needs of the sequence."""

    name: str
    gates: int
    states: tuple[str, ...]
    needed: tuple[str, ...]
    cell: Callable[[Array, Array, Arrays], dict[str, Array]]
    cell_gradient: Callable[[Arrays, Arrays], dict[str, Array]]

    def sequence(self, given: Arrays, reverse: bool) -> dict[str, Array]:
        """All that the kernel can give, of the arguments by name."""
        rows = given["rows"] + given.get("bias", 0.0)
        state = {name: given[f"{name}0"] for name in self.states}
        steps: list[dict[str, Array]] = []
        for t in _order(len(rows), reverse):
            product = state["h"] @ given["weight"] + given.get("inner_bias", 0.0)
            step = self.cell(rows[t], product, state)
            after = {name: step.pop(name) for name in self.states}
            if "present" in given:
                is_there = given["present"][t]
                after = {n: np.where(is_there, x, state[n]) for n, x in after.items()}
            step |= {f"{name}_before": x for name, x in state.items()}
            step |= {f"{name}_after": x for name, x in after.items()}
            state = after
            steps.append(step)
        if reverse:
            steps.reverse()
        stacks = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        return stacks | {f"{name}_last": x for name, x in state.items()}

    def gradient(self, given: Arrays, reverse: bool) -> dict[str, Array]:
        """The same of the kernel of the gradient: `d_h`, `d_c` are those at the last state,
        `d_after` those at h after each step."""
        time = len(given[self.needed[0]])
        at = {name: given[f"d_{name}"] for name in self.states}
        steps: list[dict[str, Array]] = []
        for t in _order(time, not reverse):
            saved = {name: given[name][t] for name in self.needed}
            if "d_after" in given:
                at = at | {"h": at["h"] + given["d_after"][t]}
            step = self.cell_gradient(saved, at)
            before = {name: step.pop(name) for name in self.states}
            if "present" in given:
                is_there = given["present"][t]
                before = {n: np.where(is_there, x, at[n]) for n, x in before.items()}
                step = {n: np.where(is_there, x, 0.0) for n, x in step.items()}
            at = before | {"h": before["h"] + step["d_product"] @ given["weight"].T}
            steps.append(step)
        if not reverse:
            steps.reverse()
        stacks = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        return stacks | {f"d_{name}0": x for name, x in at.items()}


def _order(time: int, reverse: bool) -> Iterator[int]:
    return reversed(range(time)) if reverse else iter(range(time))


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _lstm(rows: Array, product: Array, state: Arrays) -> dict[str, Array]:
    i, f, g, o = np.split(rows + product, 4, -1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c = f * state["c"] + i * g
    u = np.tanh(c)
    return {"i": i, "f": f, "g": g, "o": o, "u": u, "h": o * u, "c": c}


def _lstm_gradient(saved: Arrays, at: Arrays) -> dict[str, Array]:
    i, f, g, o, u = (saved[name] for name in "ifgou")
    at_c = at["c"] + at["h"] * o * (1 - u * u)
    parts = (
        at_c * g * i * (1 - i),
        at_c * saved["c_before"] * f * (1 - f),
        at_c * i * (1 - g * g),
        at["h"] * u * o * (1 - o),
    )
    d = np.concatenate(parts, -1)
    return {"d_rows": d, "d_product": d, "h": np.zeros_like(u), "c": at_c * f}


def _gru(rows: Array, product: Array, state: Arrays) -> dict[str, Array]:
    (x_r, x_z, x_n), (p_r, p_z, p) = np.split(rows, 3, -1), np.split(product, 3, -1)
    r, z = _sigmoid(x_r + p_r), _sigmoid(x_z + p_z)
    n = np.tanh(x_n + r * p)
    h = (1 - z) * n + z * state["h"]
    return {"r": r, "z": z, "z_rest": 1 - z, "n": n, "p": p, "h": h}


def _gru_gradient(saved: Arrays, at: Arrays) -> dict[str, Array]:
    r, z, n, p = (saved[name] for name in "rznp")
    at_n = at["h"] * (1 - z) * (1 - n * n)
    at_r, at_z = at_n * p * r * (1 - r), at["h"] * (saved["h_before"] - n) * z * (1 - z)
    return {
        "d_rows": np.concatenate((at_r, at_z, at_n), -1),
        "d_product": np.concatenate((at_r, at_z, at_n * r), -1),
        "h": at["h"] * z,
    }


KINDS = (
    Kind("Lstm", 4, ("h", "c"), ("c_before", "i", "f", "g", "o", "u"), _lstm, _lstm_gradient),
    Kind("Gru", 3, ("h",), ("h_before", "r", "z", "n", "p"), _gru, _gru_gradient),
)
