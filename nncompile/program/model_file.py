"""Model files: Python files that declare a model, how it is trained, and its data."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from nncompile.diagnostics.errors import CompileError, FileError, ModelError
from nncompile.diagnostics.locations import Location
from nncompile.diagnostics.reading import read_file
from nncompile.program.file_options import Settings, running
from nncompile.program.model import Model
from nncompile.program.option_values import FileOption
from nncompile.program.recipe import Recipe

T = TypeVar("T", Model, Recipe)


@dataclass(frozen=True)
class Data:
    """The data for training and for validation: arrays by the names of inputs, a table, or the
    path of one."""

    train: Any
    validation: Any = None


@dataclass(frozen=True)
class Declared:
    """What a model file declares: its models and recipes by the names of their variables, and its
    data. `choice` names the model that is meant where there are several, `options` are its
    hyper-parameters by name, with their values, and `way_out` says how to get a recipe or data
    where there are none, if not by declaring them."""

    path: Path
    module: ModuleType
    models: Mapping[str, Model]
    recipes: Mapping[str, Recipe]
    choice: str | None = None
    options: Mapping[str, FileOption] = field(default_factory=dict)
    way_out: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The values of its options."""
        return {name: option.value for name, option in self.options.items()}

    @cached_property
    def model(self) -> Model:
        """The model: the chosen one, the only one, or that of the only recipe. Raises
        `ModelError` where there is none, or several."""
        if self.choice is not None:
            return self._chosen(self.choice)
        if len(self.models) != 1 and len(self.recipes) == 1:
            return next(iter(self.recipes.values())).model
        return self._only(self.models, "model", "declare one: a function decorated with @model")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe: the only one, of the chosen model where one is chosen. Raises `ModelError`
        where there is none, or several."""
        recipes = self.recipes
        if self.choice is not None:
            if self.choice in recipes:
                return recipes[self.choice]
            recipes = {name: r for name, r in recipes.items() if r.model is self.model}
        declare = "declare one: training(model, minimize=..., optimizer=...)"
        return self._only(recipes, "recipe", self.way_out or declare)

    @property
    def recipe_if_any(self) -> Recipe | None:
        """The recipe; None where the file has none, or none of the chosen model. Raises
        `ModelError` where there are several."""
        if not self.recipes:
            return None
        if self.choice is not None and self.choice not in self.recipes:
            model = self.model
            if all(recipe.model is not model for recipe in self.recipes.values()):
                return None
        return self.recipe

    @cached_property
    def data(self) -> Data | None:
        """The variable `data` of the file, called where it is a function; None without one. It is
        a dict of arrays by the names of inputs, a table with named columns, the path of one (beside
        the file), or a pair of these, for training and validation. Raises `ModelError` where it is
        something else, or the function raises."""
        declared = getattr(self.module, "data", None)
        if declared is None:
            return None
        if callable(declared):
            with _importable(self.path), _explained(self.path):
                declared = declared()
        pair = declared if isinstance(declared, tuple) else (declared, None)
        if len(pair) != 2 or not _is_data(pair[0]):
            raise self._no_data(declared)
        train, validation = pair
        if validation is not None and not _is_data(validation):
            raise self._no_data(declared)
        return Data(self._given(train), None if validation is None else self._given(validation))

    @cached_property
    def class_names(self) -> list[str] | None:
        """The variable `class_names` of the file: what the classes are called, in order; None
        without one. Raises `ModelError` where it is something else than names."""
        names = getattr(self.module, "class_names", None)
        if names is None:
            return None
        several = not isinstance(names, str) and hasattr(names, "__iter__")
        listed = list(names) if several else []
        if not listed or not all(isinstance(name, str | int) for name in listed):
            raise ModelError(
                f"`class_names` of {self.path.name} is {type(names).__name__}",
                hint='the names of the classes, in order: class_names = ["cat", "dog"]',
            )
        return list(map(str, listed))

    def _given(self, data: Any) -> Any:
        """Data as they are, and the path of a table from the directory of the file."""
        if isinstance(data, str | Path):
            return self.path.resolve().parent / data
        return {str(name): x for name, x in data.items()} if isinstance(data, Mapping) else data

    def _no_data(self, declared: Any) -> ModelError:
        return ModelError(
            f"`data` of {self.path.name} is {_kinds(declared)}",
            hint='a dict of arrays ({"image": x, "label": y}), a table or the path of one '
            '("train.csv"), a pair of them (training, validation), or a function that returns '
            "these",
        )

    def _chosen(self, name: str) -> Model:
        """The model of that variable or title, or that of the recipe of that variable."""
        for variable, model in self.models.items():
            if name in (variable, model.name):
                return model
        if name in self.recipes:
            return self.recipes[name].model
        raise ModelError(
            f"{self.path.name} declares no model {name!r}",
            hint=f"it declares {', '.join((*self.models, *self.recipes))}",
        )

    def _only(self, declared: Mapping[str, T], kind: str, hint: str) -> T:
        if not declared:
            raise ModelError(f"{self.path.name} declares no {kind}", hint=hint)
        if len(declared) > 1:
            raise ModelError(
                f"{self.path.name} declares several {kind}s: {', '.join(declared)}",
                hint=f"choose one: --model {next(iter(declared))}",
            )
        return next(iter(declared.values()))


def load(
    path: str | Path, model: str | None = None, settings: Mapping[str, Any] | None = None
) -> Declared:
    """Runs a model file and finds what it declares; `model` chooses among several, and `settings`
    are values of its options, as `option` takes them or as text.

    Its directory can be imported from. Raises `FileError` where there is no such file or it is no
    text of Python, `ModelError` where it does not parse, raises, or declares neither a model nor a
    recipe, both with the line of the file; and `ModelError` for an option that it does not have.
    """
    file = Path(path)
    source = _source(file)
    module = _module(file)
    file_settings = Settings(module, source, settings)
    with _importable(file), _explained(file), running(file_settings):
        exec(compile(source, str(file), "exec"), module.__dict__)
    file_settings.check_all_known(file.name)
    models, recipes = _distinct(module, Model), _distinct(module, Recipe)
    if not models and not recipes:
        raise ModelError(
            f"{file.name} declares no model",
            hint='a model is a function decorated with @model: def net(x=f32["batch", 3]): ...',
        )
    return Declared(file, module, models, recipes, model, file_settings.options)


def _source(file: Path) -> str:
    if file.suffix != ".py" and file.exists():
        raise FileError(
            f"{file} is not a Python file",
            hint="load_onnx(path) makes a model of it" if file.suffix == ".onnx" else None,
        )
    try:
        text = read_file(file).decode()
    except UnicodeDecodeError:
        raise FileError(f"{file} is not Python source text") from None
    except FileError as error:
        near = sorted(p.name for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        hint = f"{file.parent} has {', '.join(near[:8])}" if near else None
        raise FileError(error.problem, hint=hint) from None
    if "\0" in text:
        raise FileError(f"{file} is not Python source text")
    return text


def _module(file: Path) -> ModuleType:
    """A new module of its own name, so that no other of the same file name is replaced; loading
    the file again replaces it."""
    digest = hashlib.blake2b(str(file.resolve()).encode(), digest_size=4).hexdigest()
    name = f"{file.stem.replace('.', '_')}@{digest}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(file))
    assert spec is not None  # None only where a loader declines
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    return module


@contextmanager
def _importable(file: Path) -> Iterator[None]:
    """While the block runs, modules beside the file can be imported."""
    directory = str(file.resolve().parent)
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """What the file raises, as a `ModelError` at its line."""
    try:
        yield
    except CompileError:
        raise  # it already says where
    except SyntaxError as error:
        location = Location(error.filename or str(file), error.lineno or 1)
        text = (error.text or "").strip()
        rows = [(text,)] if text else []
        raise ModelError(f"not Python: {error.msg}", rows=rows, location=location) from error
    except (Exception, SystemExit) as error:
        raise _located_error(file, error) from error


def _located_error(file: Path, error: BaseException) -> ModelError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    location = Location(str(file), frames[-1].lineno or 1) if frames else None
    rows = [(frames[-1].line,)] if frames and frames[-1].line else []
    hint = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install {error.name.partition('.')[0]} for {sys.executable}"
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ModelError(message, rows=rows, hint=hint, location=location)


def _distinct(module: ModuleType, kind: type[T]) -> dict[str, T]:
    """The variables of that kind by name; of several names for one thing, the first."""
    by_identity: dict[int, tuple[str, T]] = {}
    for name, x in vars(module).items():
        if isinstance(x, kind):
            by_identity.setdefault(id(x), (name, x))
    return dict(by_identity.values())


def _is_data(x: Any) -> bool:
    """Whether it is a dict, a path, or a table with named columns."""
    named = hasattr(x, "columns") or hasattr(x, "column_names")
    return isinstance(x, Mapping | str | Path) or (named and hasattr(x, "__getitem__"))


def _kinds(x: Any) -> str:
    if isinstance(x, tuple):
        return f"a tuple of {', '.join(type(item).__name__ for item in x) or 'nothing'}"
    return type(x).__name__
