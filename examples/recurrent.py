"""The adding problem, by RNN, LSTM and GRU: what recurrent networks can keep in mind.

    nncompile train examples/recurrent.py
    python examples/recurrent.py                 # trains all four, and compares them

A sequence of random numbers has two marks in it, one in either half; the answer is the sum of the
two marked numbers (Hochreiter & Schmidhuber 1997). Sequences have several lengths, and are filled
up with numbers that must not be looked at. Always to answer 1 has a squared error of 1/6 = 0.167,
and a plain RNN gets little further. What starts by keeping its state does: a GRU, an LSTM, and an
RNN of ReLUs whose recurrent weights start as the identity (Le et al. 2015): 0.0003, 0.002, 0.0003.
"""

import numpy as np

from dsl import (
    GRU,
    LSTM,
    RNN,
    Dense,
    adam,
    cosine,
    f32,
    i64,
    identity_matrix,
    mean_squared_error,
    model,
    relu,
    training,
)
from nncompile import Trainer


def adder(recurrent, name):
    """The model that reads with that recurrent layer."""

    @model(name=name)
    def adding(sequence=f32["batch", "time", 2], length=i64["batch"], answer=f32["batch", 1]):
        last = recurrent(sequence, lengths=length)
        total = last >> Dense(1, name="total")
        return {"total": total, "loss": mean_squared_error(total, answer)}

    return adding


def trained_as(adding):
    return training(
        adding,
        minimize="loss",
        optimizer=adam(cosine(1e-2, warmup=50, steps=1200)),
        batch_size=32,
        steps=1200,
        clip_norm=1.0,
    )


RECIPES = {
    "RNN": trained_as(adder(RNN(32), "rnn")),
    "identity RNN": trained_as(
        adder(RNN(32, activation=relu, recurrent_init=identity_matrix()), "identity_rnn")
    ),
    "LSTM": trained_as(adder(LSTM(32), "lstm")),
    "GRU": trained_as(adder(GRU(32), "gru")),
}
recipe = RECIPES["GRU"]


def examples(random, count, longest):
    length = random.integers(longest // 2, longest + 1, count)
    numbers = random.uniform(size=(count, longest))
    first = random.integers(0, length // 2)
    second = random.integers(length // 2, length)
    marks = np.zeros((count, longest))
    rows = np.arange(count)
    marks[rows, first] = marks[rows, second] = 1
    answer = numbers[rows, first] + numbers[rows, second]
    filling = np.arange(longest) >= length[:, None]
    # Whoever reads the filling reads marks, too.
    marks[filling] = random.integers(0, 2, filling.sum())
    return {
        "sequence": np.stack([numbers, marks], -1).astype(np.float32),
        "length": length,
        "answer": answer.astype(np.float32)[:, None],
    }


def data(longest=40):
    """10000 sequences to train on, 1000 others to measure on, of 20 to 40 numbers."""
    random = np.random.default_rng(0)
    return examples(random, 10000, longest), examples(random, 1000, longest)


if __name__ == "__main__":
    shown, held_out = data()
    for name, chosen in RECIPES.items():
        trainer = Trainer(chosen)
        trainer.fit(shown)
        print(f"{name:12} squared error {trainer.evaluate(held_out)['loss']:.5f}")
