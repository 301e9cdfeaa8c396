"""Prints a table: the losses of examples in Python and in Node, or with `--browser` the first ones
in Python and in Chromium, both beside that of numpy in float64."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from nncompile.cli.shared import data_or_none
from nncompile.compiler.export import export
from nncompile.diagnostics.tables import columns
from nncompile.ir.interpreter import evaluate
from nncompile.program.composition import compose
from nncompile.program.model_file import load
from nncompile.program.recipe import Recipe
from nncompile.runtime import load_state
from nncompile.train.sources.declared import sample_of
from tests.web import (
    CHROMIUM,
    ROOT,
    SCRIPT,
    Site,
    chromium,
    in_browser,
    installed,
    link_modules,
    missing,
    same_bits,
)

EXAMPLES = {
    "digits": 440,
    "recurrent": 200,
    "digits_cnn": 100,
    "digits_resnet": 30,
    "char_gpt": 30,
    "char_lstm": 60,
    "vae": 100,
    "gan": 100,
    "autoencoder": 100,
    "xor": 400,
    "mixture": 100,
    "sequence_classifier": 60,
    "translation": 30,
    "diffusion": 30,
    "neural_ode": 60,
    "lora_gpt": 30,
}


@contextmanager
def site_of(name: str) -> Iterator[tuple[Site, Recipe]]:
    """The directory of an example, and what it is made of."""
    declared = load(ROOT / "examples" / f"{name}.py")
    data = data_or_none(declared)
    assert data is not None
    sample = sample_of(declared.model, data.train)
    with tempfile.TemporaryDirectory() as folder:
        export(declared.recipe, Path(folder) / "site", to="web", sample=sample)
        yield Site(Path(folder) / "site"), declared.recipe


def first_losses(name: str) -> tuple[str, ...]:
    """A row of the table of browsers."""
    with site_of(name) as (site, recipe):
        (ours,) = (metrics for metrics, _ in site.trained(1))
        link_modules(site.directory)
        for file in ("losses.html", "batches.mjs"):
            shutil.copy(SCRIPT.with_name(file), site.directory)
        theirs = in_browser(site.directory, "losses.html?1", str(chromium()))["metrics"][0]
        state, _ = load_state(site.directory / "state.safetensors")
        graph = compose(recipe).step
        feeds = {**state, **site.batch(0)}
        exact = evaluate(
            replace(graph, outputs={n: graph.outputs[n] for n in ours}),
            {n: feeds[n] for n in graph.leaves if n in feeds},
            precision=np.float64,
        )
    (loss,) = site.manifest["minimize"][:1] or site.manifest["metrics"][:1]
    python, browser, true = ours[loss], theirs[loss], float(exact[loss])
    figures = [abs(python - browser), *(abs(x - true) for x in (python, browser))]
    relative = [x / abs(true) for x in figures]
    return name, f"{loss} {python:.7g}", *(f"{x:.1e}" for x in (figures[0], *relative))


def compared(name: str, steps: int) -> tuple[str, ...]:
    """A row of the table."""
    with site_of(name) as (site, _):
        ours = [metrics for metrics, _ in site.trained(steps)]
        theirs = site.in_node(steps)
        run = site.together(len(theirs["together"]))
    (loss,) = site.manifest["minimize"][:1] or site.manifest["metrics"][:1]
    equal = same_bits(ours, theirs["metrics"])
    together = same_bits(run, theirs["together"])
    apart = max((abs(a[loss] - b[loss]) for a, b in zip(ours, run, strict=False)), default=0.0)
    worst = max(abs(a[loss] - b[loss]) for a, b in zip(ours, theirs["metrics"], strict=True))
    return (
        name,
        f"{steps} steps",
        f"{loss} {ours[0][loss]:.6g} → {ours[-1][loss]:.6g}",
        "equal bits" if equal else f"differ by {worst:.2g}",
        "equal bits" if together else "differ",
        f"{apart:.2g}",
    )


_OF_NODE = ("example", "", "Python", "Node", "Node, 8 steps a run", "beside single steps")
_OF_BROWSERS = (
    *("example", "Python", "Chromium differs by", "relative"),
    *("Python from float64, relative", "Chromium from float64, relative"),
)


def main() -> None:
    """Reads the arguments, runs, and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.web", description=__doc__)
    parser.add_argument("examples", nargs="*", default=list(EXAMPLES))
    parser.add_argument("--browser", action="store_true", help="the first losses in Chromium")
    options = parser.parse_args()
    package = "onnxruntime-web" if options.browser else "onnxruntime-node"
    reason = missing(package, *(CHROMIUM if options.browser else ("node",)))
    if reason:
        parser.error(reason)
    rows = []
    for name in options.examples:
        made = first_losses(name) if options.browser else compared(name, EXAMPLES.get(name, 30))
        rows.append(made)
        print(*made, sep="  ", flush=True)
    print()
    place = "Chromium" if options.browser else "Node"
    print(f"onnxruntime {onnxruntime.__version__} in Python, {installed(package)} in {place}")
    print(columns([_OF_BROWSERS if options.browser else _OF_NODE, *rows]))


if __name__ == "__main__":
    main()
