"""The reference page: up to date, whole, and true of what it says things are called."""

from __future__ import annotations

import os
import re

import dsl
import nncompile
import nncompile.train
from dsl.foreign_names import FOREIGN_NAMES
from tests.reference_page import PAGE, names_by_group, text


def test_the_page_is_that_of_the_code() -> None:
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(text(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text(), "UPDATE_SNAPSHOTS=1 writes it anew"


def test_every_public_name_is_on_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for package in (dsl, nncompile, nncompile.train):
        for name in package.__all__:
            assert re.search(rf"^\| `{name}[`(]", page, re.M), name


def test_every_group_has_names() -> None:
    grouped = names_by_group()
    assert all(grouped.values())
    assert {"Conv2d", "MaxPool2d"} <= set(grouped["Convolution and pooling layers"])
    assert {"adam", "muon"} <= set(grouped["Optimizers"])
    assert {"cosine", "plateau"} <= set(grouped["Learning rate schedules"])


def test_every_public_name_is_described() -> None:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            assert re.search(r"\w", line.split(" | ", 1)[1]), line


def test_names_of_other_libraries_lead_to_names_that_exist() -> None:
    """Whatever is called or passed on in the answer is a name of `dsl`."""
    for name, here in FOREIGN_NAMES.items():
        found = re.findall(r"\b([A-Za-z_]\w*)\(|>> (\w+)", here)
        named = [a or b for a, b in found]
        assert named or hasattr(dsl, here.partition(",")[0]), name
        for one in named:
            assert one in (*dsl.__all__, *dsl.BUILTINS) or one in METHODS, f"{name}: {here}"


# Methods of values, which answers show.
METHODS = ("reshape", "astype", "fit", "transpose", "save", "load")
