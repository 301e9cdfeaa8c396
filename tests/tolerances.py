"""How near counts as equal: one table for all tests that compare numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

# dtype → (relative, absolute); what is not here must be exactly equal.
TOLERANCES: dict[str, tuple[float, float]] = {
    "float32": (2e-5, 2e-6),
    "float64": (1e-10, 1e-12),
    # What is computed in float32 and rounded is within half a unit of the last place, 2⁻¹¹ and 2⁻⁸;
    # a neighbour is allowed, as float32 itself is not exact. Gradients are rounded several times.
    "float16": (2**-9, 2**-10),
    "bfloat16": (2**-6, 2**-7),
}
# Of a gradient against a central difference in double with this step.
STEP = 1e-5
GRADIENT = (2e-6, 2e-7)


def assert_close(actual: Any, expected: Any, dtype: str, label: str = "") -> None:
    """Equal shapes, and elements as near as the table says for `dtype`; NaN equals NaN. The
    absolute part grows with the largest element: sums cancel."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{label}: shape {actual.shape}, not {expected.shape}"
    if dtype not in TOLERANCES:
        np.testing.assert_array_equal(actual, expected, err_msg=label)
        return
    relative, absolute = TOLERANCES[dtype]
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(
        actual.astype(np.float64), expected, relative, absolute * scale, err_msg=label
    )
