"""`load_onnx`: a file as a model like any other."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import onnx

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.diagnostics.reading import Path_
from nncompile.frontends.onnx import entries as entries  # fills the table
from nncompile.frontends.onnx.equal_sizes import Equal, needed, ordered
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.inputs import cut, leaves_of_file
from nncompile.frontends.onnx.naming import clean
from nncompile.frontends.onnx.original import OriginalFile, Place, digest_of
from nncompile.frontends.onnx.reading import model_apart, operator
from nncompile.frontends.onnx.refusals import ImportRefused, Refusal
from nncompile.frontends.onnx.report import ImportReport
from nncompile.frontends.onnx.roles import Stored, assign, consumers, name_all, tie
from nncompile.frontends.onnx.stored import put_weights, stored_tensors
from nncompile.frontends.onnx.tensors import Tensor, dtype_from
from nncompile.frontends.onnx.untying import untied
from nncompile.ir.graph import Graph
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.pickling import model_bytes, restored_model
from nncompile.runtime.tensor_files import placed, weights_path


@dataclass(frozen=True, eq=False, repr=False)
class ImportedModel(Model):
    """A model of a file; `report` says what was made of it."""

    report: ImportReport | None = None
    original: OriginalFile | None = None

    def differs_from_file(self) -> str | None:
        """Why a file of it cannot be the one that it was loaded from, with other weights; None
        where it can. Weights may be of other sizes, as those of a new last layer."""
        original = self.original
        if original is None:
            return "it was made without its file"
        problem = original.problem(self.parameters)
        if problem is not None or original.computes(self.predicted_values):
            return problem
        return self._problem_with_other_sizes

    @cached_property
    def _problem_with_other_sizes(self) -> str | None:
        """Why its outputs are not those of its file with weights of their sizes."""
        original = self.original
        assert original is not None  # as it is compared with its file
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / original.path.name  # which random numbers follow from
            place = None if original.is_whole else partial(placed, weights_path(file))
            self.in_its_file(original.resized(self.parameters), place)(file)
            try:
                again = load_onnx(file, **original.options)
            except CompileError:
                return "what follows a weight of another size does not fit"
        if again.original is not None and again.original.computes(self.predicted_values):
            return None
        return "its outputs are computed in another way now"

    @property
    def predicted_values(self) -> dict[str, Value]:
        """The outputs of the inference model."""
        return {name: self.outputs[name] for name in self.predict}

    @property
    def fits_in_its_file(self) -> bool:
        """Whether its weights fit in one file with its nodes."""
        return self.original is None or self.original.is_whole

    def in_its_file(
        self, weights: Mapping[str, Any], place: Place | None = None
    ) -> Callable[[Path], None]:
        """A function that writes the file that it was loaded from, with these weights, where it
        does not differ; what lies in other files is put into another one by `place`, if that is
        given."""
        assert self.original is not None  # as it does not differ
        return self.original.with_weights(weights, self.predicted_values, place)

    def __reduce__(self) -> Any:
        original = self.original
        is_whole = original is not None and original.computes(self.predicted_values)
        if original is not None and is_whole:
            original = dataclasses.replace(original, outputs={})  # they are pickled with the model
        return _restored, (model_bytes(self), self.report, original, is_whole)


def _restored(
    content: bytes, report: ImportReport, original: OriginalFile | None, is_whole: bool
) -> ImportedModel:
    """A model that was pickled."""
    model = restored_model(ImportedModel, content)
    if original is not None and is_whole:
        original = dataclasses.replace(original, outputs=model.predicted_values)
    return dataclasses.replace(model, report=report, original=original)


@suggests_names
def load_onnx(
    path: Path_,
    name: str | None = None,
    prefix: str = "",
    outputs: Sequence[str] | None = None,
    sizes: Mapping[str, str] | None = None,
    static: Mapping[str, int] | None = None,
    trainable: str | Sequence[str] = "auto",
    ties: str | bool = "auto",
    training: bool = True,
    renames: Mapping[str, str] | None = None,
) -> ImportedModel:
    """An ONNX file as a model: its weights are parameters, the statistics of its batch
    normalizations states, and its graph one that can be trained, differentiated and exported.

    `prefix` stands before the paths of parameters and states; `outputs` names the tensors of the
    file, any of them, that are outputs. `sizes` gives a size of an input, by its name in the file
    or as `"image[0]"`, another name, so that two can be one and a fixed one open; `static` gives it
    a number. `trainable` are
    patterns of the paths of what is trained; by itself that is what products, convolutions,
    normalizations and embeddings take. Tensors of the same numbers, or the transpose of each other,
    are one parameter unless `ties` is false. Sizes of inputs that nodes need to be equal, and that
    the file calls by two names, are assumed to be so, which is checked when it runs. With
    `training`, batch normalization is by the batch while the model is trained, and dropout drops
    where the file says so. `renames` gives stored tensors other paths. The `report` of the model
    says what came of it.

    Raises `FileError` where the file cannot be read, `BackendError` where it is no ONNX model or
    has nodes that cannot be imported (all of them are named), `ModelError` for an unknown name.
    """
    options = {
        **{"prefix": prefix, "outputs": outputs, "sizes": sizes, "static": static, "ties": ties},
        **{"trainable": trainable, "training": training, "renames": renames},
    }
    equal: list[Equal] = []
    while True:
        try:
            with model_apart(path) as (model, apart):
                return _loaded(path, model, apart, name, options, equal)
        except ImportRefused as refused:
            found = needed(refused.refusals, ordered(refused.inputs))
            if not found or len(equal) == _ASSUMED:
                raise
            equal.append(found[0])
            traceback.clear_frames(refused.__traceback__)  # or the weights stay, and are read again


def with_open_batch(
    model: ImportedModel, path: Path_, name: str | None = None
) -> tuple[ImportedModel, dict[str, str]]:
    """The model with a batch of any size, and the sizes that `load_onnx` takes for that, where the
    file says a number for the first axis of all inputs and outputs; else the model as it is."""
    if fixed_batch(model) is None:
        return model, {}
    sizes = {f"{name}[0]": "batch" for name in model.inputs}
    try:
        opened = load_onnx(path, name, sizes=sizes)
    except CompileError:
        return model, {}  # its nodes are for that number
    is_open = all(str(value.shape[0]) == "batch" for value in opened.outputs.values())
    return (opened, sizes) if is_open else (model, {})


def fixed_batch(model: Model) -> int | None:
    """The number that is the first axis of all inputs and outputs, if it is one."""
    leaves = [*model.inputs.values(), *model.outputs.values()]
    first = {leaf.shape[0] if leaf.rank > 1 else None for leaf in leaves}
    number = next(iter(first)) if len(first) == 1 else None
    return number if isinstance(number, int) else None


def _loaded(
    path: Path_, model: onnx.ModelProto, apart: Mapping[str, memoryview], name: str | None,
    options: Mapping[str, Any], equal: Sequence[Equal],
) -> ImportedModel:  # fmt: skip
    """See `load_onnx`; of a file whose weights are `apart`, with sizes of inputs that are assumed
    to be equal to others."""
    prefix, outputs, renames = (options[key] for key in ("prefix", "outputs", "renames"))
    digest = digest_of(model)
    file = os.path.basename(os.fspath(path))
    directory = os.fspath(Path(path).parent)
    importer = Importer(model, file, directory, options["training"])
    graph = model.graph
    if outputs is not None:
        cut(graph, outputs, file)
    title = clean(name or Path(path).stem) or "model"
    locations = LocationTable()
    with recording_locations(locations):
        sizes, static = options["sizes"] or {}, options["static"] or {}
        leaves, environment = leaves_of_file(importer, graph, sizes, static, equal)
        stored = stored_tensors(importer, graph, directory, environment, apart)
        name_all(stored, prefix, renames or {}, {*leaves, *RANDOM_STATE})
        assign(stored, options["trainable"])
        by = consumers(graph, importer.functions)
        for path_, text in untied(stored, by, prefix, {*leaves, *RANDOM_STATE}):
            importer.note("assumptions", f"{path_}: {text}")
        tied = tie(stored) if options["ties"] in ("auto", True) else {}
        initial = put_weights(stored, environment)
        del graph.initializer[:]  # their numbers are there a second time now
        importer.nodes(graph.node, environment, None, importer.opsets)
        results = _results(importer, environment, graph, leaves)
        if importer.refusals:
            inputs = {name: leaf.type for name, leaf in leaves.items()}
            raise ImportRefused(file, importer.refusals, inputs)
    original = OriginalFile.of(Path(path), digest, stored, results, options)
    loaded = _model(title, model, importer, leaves, stored, tied, initial, results, locations)
    return dataclasses.replace(loaded, original=original)


_ASSUMED = 32  # sizes at most: a file is imported again with each
_MISSING = object()


def _results(
    importer: Importer, environment: dict[str, Any], graph: onnx.GraphProto, leaves: Any
) -> dict[str, Value]:
    """The outputs; for those that cannot be one, and whose node was not refused, there are
    refusals."""
    results: dict[str, Value] = {}
    for output in graph.output:
        tensor = environment.get(output.name, _MISSING)
        if not isinstance(tensor, Tensor):
            if not isinstance(tensor, Refusal):
                kind = "a sequence" if isinstance(tensor, list) else "made by no node"
                kind = "an optional of nothing" if tensor is None else kind
                refusal = Refusal("output", 0, (), output.name, f"it is {kind}")
                importer.refusals.append(refusal)
            continue
        name = unused_name(output.name, leaves, "_out")
        results[name] = tensor.value
    return results


def _model(
    title: str, model: onnx.ModelProto, importer: Importer, leaves: dict[str, Value],
    stored: Sequence[Stored], tied: Mapping[str, Sequence[str]], initial: dict[str, Value],
    results: dict[str, Value], locations: LocationTable,
) -> ImportedModel:  # fmt: skip
    graph = Graph(title, results, tuple(leaves.values()), locations, model.graph.doc_string)
    reachable = graph.with_outputs(
        {**results, **{f"{p}.next": v for p, v in importer.updates.items()}}
    ).leaves
    used = {path: value for path, value in initial.items() if path in reachable}
    updates = {path: v for path, v in importer.updates.items() if path in used}
    own = [s for s in stored if s.same_as is None]
    operators = Counter(operator(node) for node in all_nodes(model.graph.node))
    report = ImportReport(
        file=importer.file,
        producer=model.producer_name,
        opset=importer.opsets.get("", 0),
        nodes=operators.total(),
        values=len(graph.nodes),
        trained={s.path: _text(s) for s in own if s.role == "parameter" and s.path in used},
        states={s.path: _text(s) for s in own if s.role == "state" and s.path in used},
        constants={
            s.path: s.reason
            for s in own
            if s.role == "constant" and s.is_float and s.array.size > 1
        },
        ties=tied,
        assumptions=tuple(importer.notes.get("assumptions", ())),
        renames={s.path: s.name for s in own if s.path != s.name and s.role != "constant"},
        operators=dict(operators.most_common()),
    )
    return ImportedModel(
        name=title,
        graph=graph,
        initial=used,
        updates=updates,
        predict=tuple(results),
        layers=importer.layers,
        doc=model.graph.doc_string or model.doc_string,
        report=report,
    )


def _text(s: Stored) -> str:
    return f"{Type(dtype_from(onnx.helper.np_dtype_to_tensor_dtype(s.array.dtype)), s.array.shape)}"
