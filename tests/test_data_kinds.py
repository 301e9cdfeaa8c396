"""Data as people have them: what is the same numbers trains to the same bits."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, accuracy, cross_entropy, f32, i64, model, relu
from nncompile.diagnostics.errors import CompileError, FeedError, FileError, ModelError
from nncompile.ir.types import Array
from nncompile.optim import adam
from nncompile.program.recipe import training
from nncompile.train import DataNote, Trainer

N = 50
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, N, 16)]


@model
def net(x: Any = f32["batch", 4], y: Any = i64["batch"]) -> Any:
    logits = x >> Dense(8, relu) >> Dense(3)
    return {
        "logits": logits,
        "loss": cross_entropy(logits, y),
        "accuracy": accuracy(logits, y),
    }


RECIPE = training(net, optimizer=adam(1e-2), batch_size=16)


def trained(*data: Any, **options: Any) -> dict[str, Array]:
    trainer = Trainer(RECIPE)
    trainer.fit(*data, **{"epochs": 2, **options})
    return trainer.params


def assert_equal(a: dict[str, Array], b: dict[str, Array]) -> None:
    for path, x in a.items():
        np.testing.assert_array_equal(x, b[path], err_msg=path)


@pytest.fixture(scope="module")
def of_arrays() -> dict[str, Array]:
    return trained({"x": X, "y": Y})


@pytest.fixture(scope="module")
def of_batches() -> dict[str, Array]:
    return trained([{"x": x, "y": y} for x, y in BATCHES])


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X, columns=list("abcd")).assign(y=Y)


def polars_frame() -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame({"y": Y, **{name: X[:, i] for i, name in enumerate("abcd")}})


def arrow_table() -> Any:
    arrow = pytest.importorskip("pyarrow")
    return arrow.table({**{name: X[:, i] for i, name in enumerate("abcd")}, "y": Y})


def tensors() -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(X), torch.tensor(Y)


ARRAYS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "x and y": lambda: (X, Y),
    "a tuple": lambda: ((X, Y),),
    "a list of arrays": lambda: ([X, Y],),
    "lists of numbers": lambda: (X.tolist(), Y.tolist()),
    "small labels": lambda: (X, Y.astype(np.uint8)),
    "labels that are truth values": lambda: (X, Y.astype(bool)),
    "a column of labels": lambda: (X, Y[:, None]),
    "tensors": lambda: tensors(),
    "pandas": lambda: (frame(),),
    "pandas and a series": lambda: (frame()[list("abcd")], frame()["y"]),
    "columns by input": lambda: ({"x": frame()[list("abcd")], "y": frame()["y"]},),
    "nullable integers": lambda: (frame().astype({"y": "Int64"}),),
    "polars": lambda: (polars_frame(),),
    "arrow": lambda: (arrow_table(),),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_arrays_of_all_kinds_are_trained_on(kind: str, of_arrays: dict[str, Array]) -> None:
    assert_equal(trained(*ARRAYS[kind]()), of_arrays)


class Sequence:
    """Batches as Keras has them."""

    def __init__(self) -> None:
        self.ended = 0

    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, i: int) -> tuple[Array, Array]:
        return BATCHES[i]

    def on_epoch_end(self) -> None:
        self.ended += 1


def loader() -> Any:
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(data.TensorDataset(*tensors()), batch_size=16)


SOURCES: dict[str, Callable[[], Any]] = {
    "tuples": lambda: BATCHES,
    "lists": lambda: [list(batch) for batch in BATCHES],
    "tables": lambda: [frame()[i : i + 16] for i in range(0, N, 16)],
    "a function": lambda: lambda: iter(BATCHES),
    "other types": lambda: [(x.astype(np.float64), y.astype(np.int16)) for x, y in BATCHES],
    "a loader": loader,
    "a sequence": Sequence,
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_batches_of_all_kinds_are_trained_on(kind: str, of_batches: dict[str, Array]) -> None:
    assert_equal(trained(SOURCES[kind](), shuffle=False), of_batches)
    assert_equal(trained(SOURCES[kind](), shuffle=False, prefetch=0), of_batches)


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_predictions_and_metrics_take_the_same_data() -> None:
    trainer = Trainer(RECIPE)
    expected = trainer.predict({"x": X})["logits"], trainer.evaluate({"x": X, "y": Y})
    inputs: list[Any] = [X, X.tolist(), (X,), (X, Y), BATCHES, [(x,) for x, _ in BATCHES]]
    for given in inputs:
        np.testing.assert_array_equal(trainer.predict(given)["logits"], expected[0])
    assert trainer.evaluate(X, Y) == trainer.evaluate((X, Y)) == expected[1]
    assert trainer.evaluate(BATCHES) == expected[1]


def test_columns_are_those_of_the_training_whatever_their_order() -> None:
    table = frame()
    trainer = Trainer(RECIPE)
    with pytest.warns(DataNote, match="'x' takes the columns a, b, c, d; left out: city"):
        trainer.fit(table.assign(city="Rome"))
    expected = trainer.predict(X)["logits"]
    mixed = table[list("ydbca")].assign(e=1.0)
    np.testing.assert_array_equal(trainer.predict(mixed)["logits"], expected)
    with pytest.raises(FeedError, match="lacks 1 of the 4 columns of input 'x': b"):
        trainer.predict(table.drop(columns="b"))


def test_files_are_read(tmp_path: Path, of_arrays: dict[str, Array]) -> None:
    frame().to_parquet(tmp_path / "table.parquet")
    np.save(tmp_path / "x.npy", X)
    memory_map = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert_equal(trained(memory_map, Y), of_arrays)
    with pytest.warns(DataNote, match="takes the columns"):
        assert_equal(trained(tmp_path / "table.parquet"), of_arrays)
    frame().to_csv(tmp_path / "table.csv", index=False)
    with pytest.warns(DataNote):
        trained(str(tmp_path / "table.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    for name, words in (
        ("bad.parquet", "cannot read"),
        ("tables.csv", "no file"),
        ("x", "not a table"),
    ):
        with pytest.raises(FileError, match=words):
            trained(tmp_path / name)


class Stored:
    """What reads a file in slices, and counts the rows that it reads at once."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.most = 0

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> Array:
        assert isinstance(rows, slice) or (np.diff(rows) > 0).all(), "as h5py wants them"
        result = self._array[rows]
        self.most = max(self.most, len(result))
        return result


def test_stored_arrays_are_read_in_parts(
    of_arrays: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nncompile.train.sources.whole._CHECK_BYTES", 10 * 24)
    monkeypatch.setattr("nncompile.train.sources.whole._BLOCK_BYTES", 1)
    x = Stored(X)
    assert_equal(trained(x, Y), of_arrays)
    assert x.most == 16
    with pytest.warns(DataNote, match="holds out the last 10"):
        trained(Stored(X), Y, validation_split=0.2)


def test_errors_in_a_later_part_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nncompile.train.sources.whole._CHECK_BYTES", 10 * 24)
    x, y, large = X.copy(), Y.copy(), X.astype(np.float64)
    x[33, 2], y[44], large[27, 1] = np.nan, 7, 1e300
    for given, words in (
        ((x, Y), r"x\[33, 2\]"),
        ((X, y), r"y\[44\]"),
        ((large, Y), r"x\[27, 1\]"),
    ):
        with pytest.raises(FeedError, match=words), warnings.catch_warnings():
            warnings.simplefilter("ignore", DataNote)
            trained(*given)


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "one-hot": ((X, np.eye(3)[Y]), {}, r"one-hot(.|\n)*y\.argmax\(axis=1\)"),
    "labels that are real": ((X, Y.astype(np.float32)), {}, r"y\.astype\(np\.int64\)"),
    "beyond 64 bits": ((X, Y.astype(np.uint64) + 2**63), {}, r"holds 922337203685477580[89], but"),
    "beyond float32": ((X * np.float64(1e39), Y), {}, "is declared float32"),
    "no targets": ((X,), {}, "no data for input 'y'"),
    "too many parts": (((X, Y, Y),), {}, "takes 2 inputs here, the data have 3"),
    "y and batches": ((BATCHES, Y), {}, "y stands beside batches"),
    "a split of batches": ((BATCHES,), {"validation_split": 0.1}, "validation_split needs arrays"),
    "weights beside batches": ((BATCHES,), {"sample_weight": Y}, "beside batches"),
    "nothing": ((None,), {}, "got NoneType"),
    "split": ((X, Y), {"validation_split": 1.5}, "between 0 and 1"),
    "both": ((X, Y), {"validation_split": 0.5, "validation_data": (X, Y)}, "not both"),
    "lists of two lengths": (([[1.0], [1.0, 2.0]], [0, 1]), {}, "padded"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_what_does_not_fit_is_refused(kind: str) -> None:
    data, options, words = REFUSED[kind]
    with pytest.raises(CompileError, match=words):
        trained(*data, **options)


def test_inputs_that_are_missing_beside_targets_are_told() -> None:
    @model
    def two(a: Any = f32["batch", 2], b: Any = f32["batch", 3], t: Any = i64["batch"]) -> Any:
        logits = (a >> Dense(2)) + (b >> Dense(2))
        return {"logits": logits, "loss": cross_entropy(logits, t)}

    trainer = Trainer(training(two))
    with pytest.raises(FeedError, match=r"takes 3 inputs, got 1 beside 1(.|\n)*fit\(\(a, b\), y\)"):
        trainer.fit(X[:, :2], Y)
    for data in ((X[:, :2], X[:, 1:]), {"a": X[:, :2], "b": X[:, 1:]}):
        trainer.fit(data, Y)
    trainer.fit([((X[:, :2], X[:, 1:]), Y), ({"a": X[:, :2], "b": X[:, 1:]}, Y)])


def test_a_dataset_of_torch_is_told_what_to_write() -> None:
    with pytest.raises(FeedError, match=r"examples, not batches(.|\n)*DataLoader\(dataset"):
        trained(loader().dataset)


def test_rounding_is_said_once(of_arrays: dict[str, Array]) -> None:
    trainer = Trainer(RECIPE)
    with pytest.warns(DataNote, match="'x' is float64, and is rounded to float32") as told:
        trainer.fit(X.astype(np.float64), Y, epochs=2, validation_data=(X.astype(np.float64), Y))
    assert len(told) == 1
    assert_equal(trainer.params, of_arrays)


def test_rounding_the_numbers_of_a_table_is_not_said(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    file = tmp_path / "table.csv"
    names = [f"x{i}" for i in range(X.shape[1])]
    table = pandas.DataFrame(X.astype(np.float64), columns=names).assign(y=Y)
    table.to_csv(file, index=False)
    for use, data in itertools.product((Trainer.evaluate, Trainer.fit), (file, table)):
        with pytest.warns(DataNote) as told:
            use(Trainer(RECIPE), data)
        assert [str(x.message)[:25] for x in told] == ["input 'x' takes the column"[:25]]


def test_the_last_examples_are_held_out() -> None:
    ours, by_hand = Trainer(RECIPE), Trainer(RECIPE)
    with pytest.warns(DataNote, match="first 40 examples and holds out the last 10"):
        history = ours.fit(X, Y, epochs=2, validation_split=0.2)
    expected = by_hand.fit(X[:40], Y[:40], epochs=2, validation_data=(X[40:], Y[40:]))
    assert list(history) == list(expected)


def test_sequences_are_shuffled_and_told_of_the_end_of_an_epoch() -> None:
    sequence = Sequence()
    first = trained(sequence)
    assert sequence.ended == 2
    assert_equal(trained(Sequence()), first)
    with pytest.raises(AssertionError):
        assert_equal(trained(Sequence(), shuffle=False), first)


def test_batches_of_a_generator_are_shuffled_in_a_buffer() -> None:
    given: list[int] = []

    def batches() -> Iterator[Any]:
        yield from BATCHES

    def collect(event: Any) -> None:
        if event.kind == "step":
            given.append(next(i for i, (x, _) in enumerate(BATCHES) if x is event.batch["x"]))

    trained(batches, shuffle=3, callbacks=collect, epochs=3)
    epochs = [given[i : i + 4] for i in (0, 4, 8)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert any(epoch != [0, 1, 2, 3] for epoch in epochs)


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "nncompile-prefetch"]


def test_an_error_of_a_generator_comes_after_the_batches_before_it() -> None:
    def batches() -> Iterator[Any]:
        yield from BATCHES[:2]
        raise OSError("the disk is gone")

    trainer = Trainer(RECIPE)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(batches, epochs=1)
    assert trainer.step == 2 and not threads()


def test_the_thread_ends_with_the_training() -> None:
    made = 0

    def batches() -> Iterator[Any]:
        nonlocal made
        while True:
            made += 1
            yield BATCHES[0]

    trainer = Trainer(RECIPE)
    trainer.fit(batches, steps=5)
    assert not threads() and made == 6  # one more says whether the epoch is complete
    trainer.fit(batches, callbacks=lambda event: event.trainer.stop())
    assert not threads()

    def failing(event: Any) -> None:
        raise ModelError("enough")

    with pytest.raises(ModelError, match="enough"):
        trainer.fit(batches, callbacks=failing)
    assert not threads()


def test_batches_are_made_while_a_step_runs() -> None:
    ahead = threading.Event()

    def batches() -> Iterator[Any]:
        yield BATCHES[0]
        ahead.set()  # which the first step waits for
        yield BATCHES[1]

    def wait(event: Any) -> None:
        assert ahead.wait(10)

    trained(batches, epochs=1, callbacks=wait)
