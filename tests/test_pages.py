"""The code of every page of the documentation runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import training
from tests.backends import valid_model
from tests.pages import packages_of, parts_of, run_page

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [page for page in PAGES if any(parts_of(page))]
EXTRAS = ("torch", "sklearn", "pandas", "polars", "pyarrow", "matplotlib", "skl2onnx", "optuna")
EXTRAS += ("tritonclient",)


@pytest.mark.filterwarnings("ignore::nncompile.compiler.export.InitialWeightsWarning")
@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it declares can be trained and exported."""
    for extra in packages_of(page) & set(EXTRAS):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    names = run_page(page, tmp_path)
    for net in [x for x in vars(names).values() if isinstance(x, Model)]:
        if "loss" in net.outputs:
            compose(training(net))
        valid_model(net.inference())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_no_code_that_is_not_run(page: Path) -> None:
    """Python stands in fences that say so, commands that are not run in fences without a name."""
    languages = set(re.findall(r"^```(\w+)", page.read_text("utf-8"), re.MULTILINE))
    others = {"cpp", "javascript", "java", "csharp", "swift", "rust"}
    assert languages <= {"python", "console", "json", "yaml", "toml", *others}


def test_a_page_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        '<!-- python\nx = 2\n-->\n```python title="two.py"\nprint(2)\n```\n'
        "```console\n$ nncompile --help   # of all\nanything\n$ python two.py\n```\n"
        "```python\ny = x + 1\n```\n"
    )
    assert run_page(page, tmp_path).y == 3 and (tmp_path / "two.py").exists()
    assert "page" not in sys.modules
    for wrong, error in (
        ("```python\nz\n```", NameError),
        ("```console\n$ nncompile train none.py\n```", AssertionError),
        ("```console\n$ rm none\n```", AssertionError),
    ):
        page.write_text(wrong)
        with pytest.raises(error):
            run_page(page, tmp_path)
