"""The tables of a run as Markdown, to be put into a page as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.figures import Figure
from benchmarks.peers.base import OUTSIDE
from benchmarks.rows import INFERENCE, TRAINING, Row
from benchmarks.sides import NATIVE, OURS, SCRIPT

TITLES = {
    "tiny": "perceptron 8-16-4",
    "dropout": "perceptron 784-1024-1024-1024-10, dropout ½",
    "lenet": "LeNet",
    "vgg": "VGG-like, 32×32",
    "resnet-20": "ResNet-20, 32×32",
    "resnet-18": "ResNet-18, 64×64",
    "autoencoder": "autoencoder, ConvTranspose and BatchNorm",
    "temporal": "temporal convolutions, 128 steps",
    "gpt": "GPT, 4 layers of 128, 128 tokens",
    "gpt-2": "GPT-2-like, 2 layers of 768, 128 tokens",
    "encoder": "encoder, 4 layers of 128, padded",
    "lstm": "LSTM 128, 64 steps",
    "gru": "GRU 128, 64 steps",
    "lstm-2-ways": "LSTM 128, 2 layers, both ways",
    "embedding": "mean of embeddings, 50,000 × 64",
}
OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "AdamW"}
COMMAND = "taskset -c 0 python -m benchmarks"
WHAT = {
    TRAINING: "Milliseconds per training step",
    INFERENCE: "Milliseconds per batch of inference",
}


def page(rows: Sequence[Row], figures: Sequence[Figure], environment: dict[str, Any]) -> str:
    """Every table of the run, each with the line of what it was measured on."""
    parts: list[str] = []
    for kind in (TRAINING, INFERENCE):
        some = [row for row in rows if row.kind == kind]
        if some:
            parts += [_introduction(some, environment), _steps(some), *_remarks(some)]
    for part in dict.fromkeys(figure.part for figure in figures):
        parts.append(_figures([figure for figure in figures if figure.part == part]))
    return "\n\n".join(parts) + "\n"


def machine_line(environment: dict[str, Any]) -> str:
    """The processor, its cores, the versions, and how fast each side multiplies matrices."""
    versions = environment.get("versions", {})
    shown = ", ".join(
        f"{name} {versions[name]}" for name in ("onnxruntime", "torch", "jax") if name in versions
    )
    gflops = environment.get("gflops", {})
    speeds = ", ".join(f"{name} {value:.0f}" for name, value in gflops.items())
    machine = f"{environment.get('processor', 'unknown')} ({environment.get('instructions', '?')})"
    cores = environment.get("cores", "?")
    line = f"{machine}, cores: {cores}, {shown}"
    return f"{line}; GFLOP/s of a matrix product: {speeds}" if speeds else line


def _introduction(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    kind, threads = rows[0].kind, rows[0].threads
    on = "one thread" if threads == 1 else f"{threads} threads"
    equal = "losses" if kind == TRAINING else "results"
    rounds = sorted(row.rounds for row in rows)
    spent = f"{rounds[0]}" if rounds[0] == rounds[-1] else f"{rounds[0]} to {rounds[-1]}"
    command = f"{COMMAND} --only {kind}"
    return (
        f"{WHAT[kind]} on {on}, float32: {machine_line(environment)}. The same initial weights, "
        f"{equal} checked to be equal first, all sides in random order in each round, medians of "
        f"{spent} rounds (`{command}`). The ratio is the time of the best peer, which is "
        "bold, by ours: above 1 we are faster."
    )


def _steps(rows: Sequence[Row]) -> str:
    own = [name for name in (NATIVE, SCRIPT) if any(name in row.sides for row in rows)]
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    is_training = rows[0].kind == TRAINING
    head = ["network", "batch", *(["optimizer"] if is_training else []), "nncompile"]
    head += [_short(name) for name in own] + peers + ["ratio"]
    has_native = NATIVE in own
    is_busy = any(row.is_busy for row in rows)
    head += [*(["native ratio"] if has_native else []), "quartiles"]
    head += [*(["by CPU time"] if is_busy else []), "A/A"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [title_of(row.workload), str(row.batch)]
        cells += [OPTIMIZERS.get(row.optimizer, row.optimizer)] if is_training else []
        cells += [_cell(row, OURS), *(_cell(row, name) for name in (*own, *peers))]
        portable, native = row.is_below
        cells.append(_ratio(row.ratio, row.targets.portable, portable))
        if has_native:
            cells.append(_ratio(row.native_ratio, row.targets.native, native))
        best = row.sides[row.best] if row.best else None
        cells.append(f"{best.quartiles[0]:.2f}–{best.quartiles[1]:.2f}" if best else "")
        if is_busy:
            ratios = (row.processor_ratio, row.native_processor_ratio)
            cells.append("; ".join(f"{ratio:.2f}" for ratio in ratios if ratio is not None))
        lines.append([*cells, f"{row.again:.2f}"])
    return lines_of(lines)


def title_of(workload: str) -> str:
    """What a reader calls the network."""
    return TITLES.get(workload, workload.replace("mlp-", "perceptron "))


def _short(name: str) -> str:
    return name.removeprefix("nncompile ")


def _cell(row: Row, name: str) -> str:
    if name not in row.sides:
        return "–"
    shown = number(row.sides[name].milliseconds)
    return f"**{shown}**" if name == row.best else shown


def number(value: float) -> str:
    """With three digits that count."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def _ratio(ratio: float | None, target: float | None, is_below: bool) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}, short of {target:g}" if is_below else f"{ratio:.2f}"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader must know of single cells."""
    found = [f"{title_of(row.workload)}: {row.remark}." for row in rows if row.remark]
    reasons = {
        f"{title_of(row.workload)} without {name}: {reason}."
        for row in rows
        for name, reason in row.lacking.items()
        if reason not in OUTSIDE
    }
    busy = [title_of(row.workload) for row in rows if row.is_busy]
    if busy:
        names = ", ".join(dict.fromkeys(busy))
        found.append(f"Something else used the core, so that CPU time tells more: {names}.")
    lines = [*dict.fromkeys(found), *sorted(reasons)]
    return [" ".join(lines)] if lines else []


def _figures(figures: Sequence[Figure]) -> str:
    peers = list(dict.fromkeys(name for f in figures for name in f.sides if name != OURS))
    head = [figures[0].part, "", "nncompile", *peers, "ratio"]
    lines = [head, ["---"] * len(head)]
    for f in figures:
        cells = [f.subject, f"{f.what}, {f.unit}"]
        cells += [number(f.sides[n]) if n in f.sides else "–" for n in (OURS, *peers)]
        lines.append([*cells, _ratio(f.ratio, f.target, f.is_short)])
    return lines_of(lines)


def lines_of(lines: Iterable[Sequence[str]]) -> str:
    """A table of these rows of cells."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
