"""Who leaves? A table with numbers, words and holes, and one answer for each row.

The rows are drawn at random here: put yours in the place of `table`, say from a CSV file. What is
missing is filled and scaled within the model, so that the exported file takes raw columns.
"""

import numpy as np

from dsl import (
    Dense,
    Dropout,
    Impute,
    OneHot,
    Sequential,
    Standardize,
    Value,
    Vocabulary,
    adamw,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    concatenate,
    f32,
    i64,
    model,
    option,
    relu,
    roc_auc,
    sigmoid,
    training,
)

width = option(32, low=1, help="features of the hidden layer")
drop = option(0.2, low=0.0, high=0.9, help="rate of dropout")
rate = option(3e-3, low=1e-5, high=1.0, log=True, help="learning rate")

NUMBERS = ("age", "income", "visits")
PLANS = ("free", "basic", "premium")
WITH_HOLES = f32["batch", len(NUMBERS)].may_be_nan()


def table(count: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns by name: three of numbers, one of words, and the answer."""
    random = np.random.default_rng(seed)
    age = random.uniform(18, 80, count)
    income = random.lognormal(10, 0.5, count)
    visits = random.poisson(6, count).astype(float)
    plan = random.choice(PLANS, count)
    score = (
        0.08 * (40 - age) - 0.4 * (visits - 6) + 1.5 * (plan == "free") + random.normal(size=count)
    )
    for column in (age, income, visits):
        column[random.random(count) < 0.1] = np.nan
    return {"age": age, "income": income, "visits": visits, "plan": plan, "leaves": score > 0}


def numbers_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The columns of numbers, one beside the other."""
    return np.stack([columns[name] for name in NUMBERS], axis=1).astype(np.float32)


rows = table()
known = {name: column[:1600] for name, column in rows.items()}
held_out = {name: column[1600:] for name, column in rows.items()}
prepare = Sequential(Impute("median"), Standardize(), name="prepare").adapt(numbers_of(known))
plans = Vocabulary(PLANS, name="plans")


@model(predict="probability")
def leaving(
    numbers: Value = WITH_HOLES,
    plan: Value = i64["batch"],
    leaves: Value = f32["batch"],
) -> dict[str, Value]:
    """The probability that each one leaves."""
    x = concatenate([numbers >> prepare, plan >> plans >> OneHot(len(plans))], axis=1)
    logit = (x >> Dense(width, relu) >> Dropout(drop) >> Dense(1))[:, 0]
    return {
        "probability": sigmoid(logit),
        "loss": binary_cross_entropy_with_logits(logit, leaves),
        "accuracy": binary_accuracy(logit, leaves, threshold=0),
        "auc": roc_auc(sigmoid(logit), leaves),
    }


recipe = training(leaving, minimize="loss", optimizer=adamw(rate), batch_size=32, epochs=20)


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rows to train on, and those that are held out."""
    train, validation = (
        {
            "numbers": numbers_of(part),
            "plan": plans.encode(part["plan"]),
            "leaves": part["leaves"].astype(np.float32),
        }
        for part in (known, held_out)
    )
    return train, validation
