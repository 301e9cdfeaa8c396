"""Directories of `--to web`, trained by stock onnxruntime in Python and by Node.

`python -m tests.web [EXAMPLE...]` prints whether their losses are the same bits, and with
`--browser` how far the first losses in Chromium are apart from Python's.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from dsl import (
    BatchNorm,
    Dense,
    Dropout,
    accuracy,
    adam,
    cross_entropy,
    f32,
    i64,
    model,
    relu,
    softmax,
    training,
)
from nncompile.program.recipe import Recipe
from nncompile.runtime import load_state
from tests.sessions import plain_session

ROOT = Path(__file__).parent.parent.parent
VARIABLE = "NNCOMPILE_NODE_MODULES"
SCRIPT = Path(__file__).parent / "losses.mjs"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
BATCH = 16


def recipe(width: int = 8, drop: float = 0.2) -> Recipe:
    """A small network with what changes from step to step: dropout, running statistics."""

    @model(predict=("logits",))
    def net(x=f32["batch", 64], y=i64["batch"]):
        logits = x >> Dense(width, relu) >> Dropout(drop) >> BatchNorm() >> Dense(10)
        return {
            "logits": logits,
            "probabilities": softmax(logits),
            "loss": cross_entropy(logits, y),
            "accuracy": accuracy(logits, y),
        }

    return training(net, minimize="loss", optimizer=adam(1e-2), batch_size=BATCH)


def sample(count: int = 100) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 64)).astype("f4")
    return {"x": x, "y": x[:, :10].argmax(1)}


def node_modules() -> Path | None:
    """Where npm's packages are: the folder that the variable names, or that of the repository."""
    folder = Path(os.environ.get(VARIABLE) or ROOT / "node_modules")
    return folder.resolve() if folder.is_dir() else None


def missing(package: str, *programs: str) -> str | None:
    """Why nothing can be run that needs the package of npm and one of the programs."""
    if not any(map(shutil.which, programs)):
        return f"there is no {' or '.join(programs)}"
    folder = node_modules()
    if folder is None or not (folder / package).is_dir():
        return f"no {package}: npm install --no-save {package}, or {VARIABLE} says where it is"
    return None


def chromium() -> str | None:
    """The program of the browser."""
    return next(filter(shutil.which, CHROMIUM), None)


def installed(package: str) -> str:
    """The version of a package of npm."""
    folder = node_modules()
    assert folder is not None
    version: str = json.loads((folder / package / "package.json").read_text("utf-8"))["version"]
    return version


class Site:
    """A directory of `--to web`, as other programs than ours read it."""

    def __init__(self, directory: Path, optimized: bool = True) -> None:
        self.directory = directory
        self.manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
        self.data, _ = load_state(directory / "data.safetensors")
        self.sessions = {
            name: plain_session(directory / file, optimized)
            for name, file in self.manifest["files"].items()
            if file.endswith(".onnx")
        }

    def batch(self, number: int) -> dict[str, Any]:
        """The rows of one batch: they follow each other, and begin again."""
        cut = {
            name
            for name, x in self.manifest["inputs"].items()
            if x["shape"][:1] == [self.manifest["examples"]]
        }
        count = len(self.data[min(cut)])
        size = min(self.manifest["batch_size"], count)
        first = number * size % (count - size + 1)
        return {n: x[first : first + size] if n in cut else x for n, x in self.data.items()}

    def run(self, name: str, known: dict[str, Any]) -> dict[str, Any]:
        session = self.sessions[name]
        feeds = {x.name: known[x.name] for x in session.get_inputs()}
        outputs = [x.name for x in session.get_outputs()]
        return dict(zip(outputs, session.run(None, feeds), strict=True))

    def trained(self, steps: int) -> Iterator[tuple[dict[str, float], dict[str, Any]]]:
        """The metrics of each step, and the state after it."""
        state, _ = load_state(self.directory / "state.safetensors")
        for number in range(steps):
            results = self.run("step", {**state, **self.batch(number)})
            following = {path: results[name] for path, name in self.manifest["state"].items()}
            state = {**state, **following}
            yield {name: float(results[name]) for name in self.manifest["metrics"]}, state

    def together(self, steps: int) -> list[dict[str, float]]:
        """The metrics of so many steps in one run."""
        state, _ = load_state(self.directory / "state.safetensors")
        batches = [self.batch(number) for number in range(steps)]
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        results = self.run("steps", {**state, **stacked})
        return [{n: float(results[n][i]) for n in self.manifest["metrics"]} for i in range(steps)]

    def in_node(self, steps: int) -> dict[str, Any]:
        """What Node prints of so many steps; see `losses.mjs`."""
        link_modules(self.directory)
        return printed("node", SCRIPT, self.directory, steps)


def output(*command: object) -> str:
    """What a program prints."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(*command: object) -> dict[str, Any]:
    """The JSON that a program prints."""
    result: dict[str, Any] = json.loads(output(*command))
    return result


def in_browser(directory: Path, page: str, browser: str) -> dict[str, Any]:
    """The JSON that a page of the directory, which is served, posts to its server."""
    posted: SimpleQueue[bytes] = SimpleQueue()
    with (
        served(directory, posted) as address,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *(f"--user-data-dir={profile}", f"{address}/{page}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            result: dict[str, Any] = json.loads(posted.get(timeout=SECONDS))
        finally:
            process.terminate()
    assert "error" not in result, result["error"]
    return result


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, posted: SimpleQueue[bytes], **options: Any) -> None:
        self.posted = posted
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def served(directory: Path, posted: SimpleQueue[bytes] | None = None) -> Iterator[str]:
    """The address at which the files of the directory are while the block runs; what pages post
    there is put into the queue."""
    handler = functools.partial(
        _Handler, directory=str(directory), posted=SimpleQueue() if posted is None else posted
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def link_modules(directory: Path) -> None:
    """npm's packages in the directory, as `npm install` there puts them."""
    folder, link = node_modules(), directory / "node_modules"
    if folder is not None and not link.is_symlink():
        link.symlink_to(folder)


def same_bits(a: list[dict[str, float]], b: list[dict[str, float]]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(np.array_equal(x[n], y[n], equal_nan=True) for n in x)
        for x, y in zip(a, b, strict=True)
    )
