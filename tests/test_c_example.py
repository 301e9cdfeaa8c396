"""The C example: built with the library of the Python package, it trains as Python does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nncompile import export
from nncompile.runtime import load_state
from tests import web
from tests.web import Site

EXAMPLE = web.ROOT / "examples" / "c"
LIBRARY = Path(onnxruntime.__file__).parent
STEPS = 9

pytestmark = [
    pytest.mark.thorough,  # they share one build
    pytest.mark.skipif(
        shutil.which("cmake") is None or not any(map(shutil.which, ("cc", "gcc", "clang"))),
        reason="cmake and a C compiler build the example",
    ),
    pytest.mark.skipif(
        not any((LIBRARY / "capi").glob("libonnxruntime.*")),
        reason="this package of onnxruntime has no library that programs can be linked with",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    warnings = "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Werror"
    web.output("cmake", "-S", EXAMPLE, "-B", build, f"-DONNXRUNTIME={LIBRARY}", warnings)
    web.output("cmake", "--build", build)
    return build / "train"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "site"
    export(web.recipe(), directory, to="web", sample=web.sample())
    return directory


def test_c_trains_as_python_does(program: Path, site: Path, tmp_path: Path) -> None:
    trained = list(Site(site).trained(STEPS))
    out = tmp_path / "trained.safetensors"
    printed = web.output(program, site, web.BATCH, STEPS, out).splitlines()
    losses = [f"step {i + 1}  loss {metrics['loss']:.9g}" for i, (metrics, _) in enumerate(trained)]
    assert printed == [*losses, f"saved {out} after {STEPS} steps"]
    saved, about = load_state(out)
    assert about == load_state(site / "state.safetensors")[1]
    for path, x in trained[-1][1].items():
        np.testing.assert_array_equal(saved[path], x, path)
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_mistakes_are_one_line_each(program: Path, site: Path, tmp_path: Path) -> None:
    def said(*arguments: object) -> tuple[int, str]:
        command = [str(x) for x in (program, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=web.SECONDS)
        (line,) = done.stderr.splitlines()
        return done.returncode, line

    out = tmp_path / "out.safetensors"
    assert said(site)[0] == 2 and said(site)[1].startswith("usage: ")
    assert said(tmp_path, 4, 2, out) == (1, f"{tmp_path}/state.safetensors: cannot be read")
    wrong = (1, "BATCH: must be from 1 to the number of examples")
    assert said(site, 0, 2, out) == said(site, 101, 2, out) == wrong
    assert said(site, 4, 0, out) == (1, "STEPS: must be 1 or more")
    missing = tmp_path / "none" / "out.safetensors"
    assert said(site, 4, 1, missing) == (1, f"{missing}: cannot be written")
    for file, damage, problem in (
        ("state", lambda x: x[:-1], "dense_1.weight.v: lies beyond the end of its file"),
        ("state", lambda x: b"<html>" + x, "is not a complete .safetensors file"),
        ("state", lambda x: x.replace(b'"F32"', b'"F99"'), "is described in a way that"),
        ("data", lambda x: x.replace(b"[100]", b"[099]"), "has another number of examples"),
        ("step", lambda x: x[:100], "onnxruntime: "),
    ):
        damaged = tmp_path / "damaged"
        shutil.copytree(site, damaged, dirs_exist_ok=True)
        (path,) = damaged.glob(f"{file}.*")
        path.write_bytes(damage(path.read_bytes()))
        code, line = said(damaged, 4, 2, out)
        assert code == 1 and problem in line, line
    assert not out.exists()


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_headers_of_programs_and_of_operators_agree() -> None:
    places = web.ROOT / "kernels" / "tests" / "places.cpp"
    web.output("c++", "-std=c++17", "-fsyntax-only", places)
