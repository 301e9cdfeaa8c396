"""`python -m tests.matrix`: the whole test suite on every Python and onnxruntime that is promised.

Needs nothing but Python. Each cell has a virtual environment of its own in `.matrix/`, which is
kept: a second run installs nothing anew. `--cells` prints the cells as JSON; the workflow of the
public hosts reads its jobs from there, so this file is the one place that states the matrix.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
WHERE = ROOT / ".matrix"
SIDE_BY_SIDE = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")  # as in `make test`


@dataclass(frozen=True)
class Cell:
    """One combination: a Python, an onnxruntime, and torch or not."""

    python: str
    onnxruntime: str  # "oldest" or "newest", and onnx with it
    torch: bool

    @property
    def name(self) -> str:
        return f"{self.python}-{self.onnxruntime}-{'torch' if self.torch else 'bare'}"

    def requirements(self) -> list[str]:
        """What pip installs before the project."""
        oldest = ("onnxruntime", "onnx") if self.onnxruntime == "oldest" else ()
        return ([_torch()] if self.torch else []) + [*map(_oldest, oldest)]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell."""

    cell: Cell
    versions: str
    result: str
    seconds: float
    passed: bool | None  # None: there is no such Python here


def cells() -> list[Cell]:
    """Every Python of the classifiers, with the oldest and the newest onnxruntime, and torch or
    not."""
    return [
        Cell(python, runtime, torch)
        for python in _pythons()
        for runtime in ("oldest", "newest")
        for torch in (True, False)
    ]


def _project() -> dict[str, object]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert isinstance(project, dict)
    return project


def _pythons() -> list[str]:
    prefix = "Programming Language :: Python :: "
    classifiers = _project()["classifiers"]
    assert isinstance(classifiers, list)
    names = [c.removeprefix(prefix) for c in classifiers if c.startswith(prefix)]
    return [name for name in names if "." in name]


def _oldest(package: str) -> str:
    """The lower bound of a dependency, as a requirement."""
    dependencies = _project()["dependencies"]
    assert isinstance(dependencies, list)
    (bound,) = [d for d in dependencies if re.match(rf"{package}\b", d)]
    return f"{bound.replace('>=', '==')}.0"


def _torch() -> str:
    extras = _project()["optional-dependencies"]
    assert isinstance(extras, dict)
    (requirement,) = extras["torch"]
    return str(requirement)


def interpreter(version: str) -> str | None:
    """The path of a Python of that version: on the search path, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}"), sys.executable]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(p / "bin" / "python") for p in sorted(pyenv.glob(f"{version}.*"))]
    print_version = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in filter(None, candidates):
        ran = subprocess.run([candidate, "-c", print_version], capture_output=True, text=True)
        if ran.returncode == 0 and ran.stdout.strip() == version:
            return candidate
    return None


def run(cell: Cell, arguments: Sequence[str]) -> Outcome:
    """Sets the cell up and runs pytest with `arguments` in it; the output is in `.matrix/`."""
    start = time.monotonic()
    python = interpreter(cell.python)
    if python is None:
        return Outcome(cell, "", f"no Python {cell.python} here", 0.0, None)
    place = WHERE / cell.name
    own = str(place / "bin" / "python")
    log = WHERE / f"{cell.name}.log"
    with log.open("w") as file:
        try:
            _set_up(cell, python, place, own, file)
        except subprocess.CalledProcessError:
            return Outcome(cell, "", f"set-up failed: {_shown(log)}", _since(start), False)
        command = [own, "-m", "pytest", "-q", *SIDE_BY_SIDE, *arguments]
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file).returncode
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    result = lines[-1].strip("= ") if lines else f"pytest ended with {code}"
    return Outcome(cell, _versions(own), result, _since(start), code == 0)


def _set_up(cell: Cell, python: str, place: Path, own: str, log: object) -> None:
    stamp = place / "pyproject.toml"
    declared = (ROOT / "pyproject.toml").read_bytes()
    if stamp.exists() and stamp.read_bytes() == declared:
        return
    install = [own, "-m", "pip", "install", "--quiet"]
    commands = [[python, "-m", "venv", "--clear", str(place)]]
    # Of its own: with the others in one command, pip may choose another file of the same version.
    commands += [[*install, wanted] for wanted in cell.requirements()]
    commands += [[*install, "-e", ".[test]", *cell.requirements()]]
    for command in commands:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)  # type: ignore[call-overload]
    stamp.write_bytes(declared)


def _versions(python: str) -> str:
    code = (
        "from importlib.metadata import version\n"
        "from importlib.util import find_spec\n"
        "names = ['onnxruntime', 'onnx', 'numpy', 'torch']\n"
        "print(' '.join(f'{n} {version(n)}' for n in names if find_spec(n)))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def _since(start: float) -> float:
    return time.monotonic() - start


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _chosen(options: argparse.Namespace) -> Iterator[Cell]:
    for cell in cells():
        same_python = options.python in (None, cell.python)
        same_runtime = options.onnxruntime in (None, cell.onnxruntime)
        if same_python and same_runtime and options.torch in (None, cell.torch):
            yield cell


def main(words: Sequence[str] | None = None) -> int:
    """Runs the chosen cells, prints a line for each, and returns 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--cells", action="store_true", help="print the cells as JSON and stop")
    parser.add_argument("--python", choices=_pythons(), help="this one alone")
    parser.add_argument("--onnxruntime", choices=("oldest", "newest"), help="this one alone")
    parser.add_argument("--torch", action=argparse.BooleanOptionalAction, help="with or without")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args(words)
    chosen = list(_chosen(options))
    if options.cells:
        print(json.dumps([dataclasses.asdict(cell) for cell in chosen]))
        return 0
    WHERE.mkdir(exist_ok=True)
    outcomes = []
    for cell in chosen:
        outcome = run(cell, options.pytest)
        outcomes.append(outcome)
        mark = {True: "passed", False: "FAILED", None: "absent"}[outcome.passed]
        minutes = f"{outcome.seconds / 60:.1f} min"
        print(f"{mark}  {cell.name:<22} {minutes:>9}  {outcome.result}", flush=True)
        if outcome.versions:
            print(f"        {outcome.versions}", flush=True)
    failed = [o for o in outcomes if o.passed is False]
    for outcome in failed:
        print(f"see {_shown(WHERE / outcome.cell.name)}.log")
    ran = [o for o in outcomes if o.passed is not None]
    print(f"{len(ran) - len(failed)} of {len(outcomes)} cells passed, {len(failed)} failed")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    raise SystemExit(main())
