"""All that is promised of a file, checked: a row of the table."""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nncompile.frontends.onnx.loading import ImportedModel, load_onnx
from nncompile.frontends.onnx.original import training_nodes
from nncompile.frontends.onnx.reading import read_model
from nncompile.program.model import RANDOM_STATE
from nncompile.verify.onnx_files import TOLERANCES
from tests.onnx_models import exports, learning
from tests.onnx_models.examples import OTHER_SIZES, Case, Examples
from tests.onnx_models.gradients import ROUNDED, TOLERANCE, Gradients, compared

COLUMNS = (
    *("file", "inputs", "other sizes", "numbers", "gradient", "float32", "differences"),
    *("ties", "states", "loss", "step", "TorchScript", "adapter"),
)
"""Of the table. Numbers: from onnxruntime without optimizations, of the largest element. Gradient:
in double from torch's, of each tensor's largest; float32: as onnxruntime runs it, of the largest of
all; differences: of derivatives along directions from finite differences of the file in double.
States: those that move by their statistics alone, and stay where they are frozen. Step: Adam's mean
gradients after some steps; TorchScript: as numbers; adapter: the file of factors."""


@dataclass
class Row:
    """What was found of a file, by column, and what falls short."""

    cells: dict[str, str] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)


def checked(file: Path) -> Row:
    """The row of a file. What cannot be checked falls short, with the reason."""
    row = Row({"file": file.name})
    with tempfile.TemporaryDirectory() as directory:
        try:
            _Checks(row, file, Path(directory)).all()
        except Exception as error:  # that the file cannot be loaded is a row, too
            _failed(row, "file", error)
    return row


def _failed(row: Row, column: str, error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    row.cells[column] = row.cells[column] if column == "file" else "failed"
    row.short.append(f"{column}: {type(error).__name__} at {place}: {error}")


class _Checks:
    """The checks of a file, each of which fills columns of its row."""

    def __init__(self, row: Row, file: Path, directory: Path) -> None:
        self.row, self.file, self.directory = row, file, directory
        self.model: ImportedModel = load_onnx(file)
        types = {name: leaf.type for name, leaf in self.model.inputs.items()}
        self.examples = Examples(file, types)
        self.plan = learning.plan_of(self.model, file, self.examples, directory)
        self.differs = ""  # why the numbers of the file are other ones each time, or in use
        if set(RANDOM_STATE) & set(self.model.inference().leaves):
            self.differs = "random"
        elif training_nodes(read_model(file)):
            self.differs = "in training"

    def all(self) -> None:
        """Makes every check; one that fails does not keep the others from being made."""
        inputs = [f"{n} {v.type}" for n, v in self.model.inputs.items()]
        self.row.cells["inputs"] = ", ".join(inputs)
        for column, check in (
            ("numbers", self.numbers),
            ("gradient", self.gradients),
            ("loss", self.loss),
            ("step", self.step),
            ("TorchScript", self.torchscript),
            ("adapter", self.adapter),
        ):
            try:
                check()
            except Exception as error:  # of whatever kind: it is in the table
                _failed(self.row, column, error)

    def put(self, column: str, text: str, problem: str = "") -> None:
        self.row.cells[column] = text
        if problem:
            self.row.short.append(f"{column}: {problem}")

    def at_most(
        self, column: str, found: float | None, otherwise: str, most: float = TOLERANCE
    ) -> None:
        """A difference that must not exceed the tolerance."""
        if found is None:
            self.put(column, "-", otherwise)
        else:
            problem = "" if found <= most else f"{found:.1e} is more than {most:.0e}"
            self.put(column, f"{found:.1e}", problem)

    def numbers(self) -> None:
        others = self.examples.others
        cells, few = [], []
        for name, sizes in others.items():
            cells.append(f"{name} {sizes}" if sizes else f"{name} {self.examples.base[name]} alone")
            if 0 < len(sizes) < OTHER_SIZES:
                few.append(str(name))
        self.put(
            "other sizes",
            ", ".join(cells) or "all fixed",
            f"less than three sizes of {', '.join(few)} are accepted" if few else "",
        )
        if not self.examples.drawn:
            self.put("numbers", "-", "no inputs that the file accepts")
            return
        found, problem = exports.as_numbers(self.model, self.examples.drawn, self.directory)
        self.put("numbers", f"{found:.1e}" if not self.differs else self.differs,
                 "" if self.differs else problem)  # fmt: skip

    def gradients(self) -> None:
        data = dict(np.load(self.plan.data))
        feeds = {port.name: data[port.name] for port in self.examples.session.inputs}
        case = Case("a batch", {}, feeds, [*self.examples.session.run(feeds).values()])
        found: Gradients = compared(self.model, self.file, case, self.directory)
        missing = "; ".join(found.missing)
        self.at_most("gradient", found.in_double, missing)
        sizes = [leaf.dtype.numpy.itemsize for leaf in self.model.parameters.values()]
        rounded = ROUNDED if min(sizes, default=4) < 4 else TOLERANCE
        self.at_most("float32", found.as_run, missing, rounded)
        if found.along is None:
            self.put("differences", "-", "" if found.in_double is not None else found.by)
        else:
            self.at_most("differences", found.along, "")
        if found.statistics is not None and not found.statistics <= TOLERANCE:
            self.row.short.append(f"states: {found.statistics:.1e} from torch's after a batch")
        if found.in_double is None and found.along is not None:
            # Without torch, differences are what there is.
            self.row.short = [s for s in self.row.short if missing not in s]

    def loss(self) -> None:
        result = learning.learned(self.plan, self.directory)
        text = f"{result.before:.4g} → {result.after:.4g}"
        self.put("loss", text, "" if result.after < result.before else "it is not lower")
        ties = learning.ties_of(self.file)
        broken = "; ".join(learning.broken_ties(self.model, self.file, result))
        self.put("ties", str(len(ties)) if ties else "none", broken)
        problems = [
            *learning.changed_constants(self.model, self.file, result),
            *(() if self.differs else learning.moved_statistics(self.file, self.plan)),
        ]
        count = len(set(self.model.states) - {*RANDOM_STATE})
        self.put("states", f"{count} held" if count else "none", "; ".join(problems[:3]))

    def step(self) -> None:
        off, problem = exports.as_step(self.plan, self.directory)
        self.put("step", f"{off:.1e}" if off else "same bits", problem)

    def torchscript(self) -> None:
        if not find_spec("torch"):
            self.put("TorchScript", "no torch")
            return
        found, problem = exports.as_torchscript(self.model, self.examples.drawn, self.directory)
        more = exports.torchscript_step_problem(self.plan, self.directory)
        problem = "" if self.differs else problem
        text = self.differs or f"{found:.1e}"
        self.put("TorchScript", text, "; ".join(x for x in (problem, more) if x))

    def adapter(self) -> None:
        trainer, problems = learning.adapted(self.plan)
        problem = exports.adapter_problem(trainer, self.plan, self.directory)
        problem = "" if self.differs else problem
        size = (self.directory / "adapter.safetensors").stat().st_size
        self.put("adapter", f"{size:,} bytes", "; ".join([*problems[:3], *filter(None, [problem])]))


assert TOLERANCES["float32"] == TOLERANCE
