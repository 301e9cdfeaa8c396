"""Prints a table: the losses of examples in Python and in Node."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import onnxruntime

from nncompile.cli.shared import data_or_none
from nncompile.compiler.export import export
from nncompile.diagnostics.tables import columns
from nncompile.program.model_file import load
from nncompile.train.sources.declared import sample_of
from tests.web import ROOT, Site, installed, missing, same_bits

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


def compared(name: str, steps: int) -> tuple[str, ...]:
    """A row of the table."""
    declared = load(ROOT / "examples" / f"{name}.py")
    data = data_or_none(declared)
    assert data is not None
    sample = sample_of(declared.model, data.train)
    with tempfile.TemporaryDirectory() as folder:
        export(declared.recipe, Path(folder) / "site", to="web", sample=sample)
        site = Site(Path(folder) / "site")
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.web", description=__doc__)
    parser.add_argument("examples", nargs="*", default=list(EXAMPLES))
    reason = missing("onnxruntime-node", "node")
    if reason:
        parser.error(reason)
    rows = []
    for name in parser.parse_args().examples:
        rows.append(compared(name, EXAMPLES.get(name, 30)))
        print(*rows[-1], sep="  ", flush=True)
    print()
    print(
        f"onnxruntime {onnxruntime.__version__} in Python, {installed('onnxruntime-node')} in Node"
    )
    titles = ("example", "", "Python", "Node", "Node, 8 steps a run", "beside single steps")
    print(columns([titles, *rows]))


if __name__ == "__main__":
    main()
