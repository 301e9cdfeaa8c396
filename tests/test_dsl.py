"""The public names of the language."""

from __future__ import annotations

import builtins
from typing import Any

import dsl
from dsl import f32
from nncompile.ir.graph import Input


def test_every_public_name_exists_once() -> None:
    assert len(set(dsl.__all__)) == len(dsl.__all__)
    for name in (*dsl.__all__, *dsl.BUILTINS):
        assert getattr(dsl, name) is not None


def test_a_star_import_shadows_no_name_of_pythons() -> None:
    given: dict[str, Any] = {}
    exec("from dsl import *", given)
    assert not [name for name in dir(builtins) if name in given and not name.startswith("_")]
    assert {"relu", "Dense", "mean", "argmax"} <= given.keys()
    names = {name for name in vars(dsl) if hasattr(builtins, name) and not name.startswith("_")}
    assert names == set(dsl.BUILTINS)


def test_names_that_python_has_are_imported_by_name() -> None:
    given: dict[str, Any] = {}
    exec(f"from dsl import {', '.join(dsl.BUILTINS)}", given)
    x = Input("x", f32["n", 4])()
    for name in dsl.BUILTINS:
        assert given[name] is getattr(dsl, name) is not getattr(builtins, name)
    assert given["max"](x, 1) is x.max(1)
    assert given["sum"](x) is x.sum()
    assert given["abs"](x) is builtins.abs(x)
