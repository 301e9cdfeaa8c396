"""The networks that onnx carries without their weights: as they are, and with weights of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import DATA_DIR
from onnx.backend.test.runner import Runner

from nncompile import export, load_onnx
from tests.onnx_files import run

LIGHT = Path(DATA_DIR) / "light"


def light_cases() -> Iterator[TestCase]:
    """Each network with the numbers that its file makes of nothing, on the data of onnx's runner,
    and with the output that the file beside it holds."""
    for path in sorted((Path(DATA_DIR) / "real").glob("*/data.json")):
        told = json.loads(path.read_text("utf-8"))
        file = LIGHT / Path(told["url"]).name
        model = onnx.load(file)
        outputs = [
            numpy_helper.to_array(onnx.TensorProto.FromString(p.read_bytes()))
            for p in sorted(LIGHT.glob(f"{file.stem}_output_*.pb"))
        ]
        data = [Runner.generate_dummy_data(i) for i in inputs_of(model)]
        yield TestCase(
            name=path.parent.name,
            model_name=told["model_name"],
            url=None,
            model_dir=None,
            model=model,
            data_sets=[(data, outputs)],
            kind="light",
            rtol=told["rtol"],
            atol=told["atol"],
        )


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that have no numbers in the file."""
    stored = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in stored]


def weighted(model: onnx.ModelProto, seed: int = 0) -> None:
    """Gives the network random weights, of variances that keep those of its layers near one, in the
    place of the nodes that make weights of one number each. Its output is what it takes the softmax
    of, where all that is random may come to one class."""
    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    variances = {n.input[4] for n in model.graph.node if n.op_type == "BatchNormalization"}
    for node in [n for n in model.graph.node if n.op_type == "ConstantOfShape"]:
        shape = tuple(int(d) for d in shapes[node.input[0]])
        numbers = rng.standard_normal(shape) * (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        if node.output[0] in variances:
            numbers = rng.uniform(0.5, 2, shape)
        elif len(shape) == 1:
            numbers = 1 + 0.1 * numbers
        weight = numpy_helper.from_array(numbers.astype(np.float32), node.output[0])
        model.graph.initializer.append(weight)
        model.graph.node.remove(node)
    if model.graph.node[-1].op_type == "Softmax":
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=model.graph.node[-1].input[0]))
        del model.graph.node[-1]
    inputs = inputs_of(model)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def distance(file: Path, directory: Path) -> tuple[float, int]:
    """How far, relative to the largest, what is exported of the network with random weights is from
    what onnxruntime makes of its file, without optimizations; the number of its weights."""
    model = onnx.load(file)
    weighted(model)
    path, exported = directory / "weighted.onnx", directory / "exported.onnx"
    onnx.save(model, path)
    loaded = load_onnx(path)
    export(loaded, exported)
    rng = np.random.default_rng(1)
    feeds: dict[str, Any] = {
        i.name: rng.uniform(0, 1, [d.dim_value for d in i.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for i in inputs_of(model)
    }
    wanted, found = run(path, feeds), run(exported, feeds)
    largest = max(float(np.abs(w).max()) for w in wanted)
    apart = max(float(np.abs(w - f).max()) for w, f in zip(wanted, found, strict=True))
    count = sum(int(np.prod(v.shape)) for v in loaded.parameters.values())
    assert all(np.isfinite(w).all() for w in wanted)
    return apart / largest, count
