"""For tests of one's own models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.verify.report import Report
from nncompile.verify.verification import verify


def assert_backends_agree(
    model: Model | Recipe, data: Mapping[str, Array] | None = None, **options: Any
) -> Report:
    """Raises `AssertionError` where a backend does not compute what the graph says, with the table
    and the first node that mismatches; gives the report otherwise. The options are those of
    `verify`.

        def test_my_model():
            assert_backends_agree(recipe, quick=True)
    """
    report = verify(model, data, **options)
    if not report.agrees:
        raise AssertionError(report.text())
    return report
