"""Averages of the weights: where steps are noisy, the mean of many places is better than the last.

    nncompile train examples/averaging.py
    python examples/averaging.py

Linear regression by single examples at a rate that is never lowered, on data whose least squares
are known. `ema` follows the weights exponentially, `swa` is their mean from the third epoch on (B.
Polyak and A. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; P. Izmailov
et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018). Both are states
of the training step. The last weights are 0.079 above the least loss, `ema` 0.0007, `swa` 0.00001.
"""

from batch_sizes import data, least, line

from dsl import ema, sgd, swa, training
from nncompile import Trainer

recipe = training(
    line, optimizer=sgd(0.02), average=[ema(0.999), swa(start=2 * 442)], batch_size=1, epochs=50
)


def excess(trainer, patients):
    """How much the loss is above that of least squares, with the last weights and the averages."""
    params = {"last": None, "ema": trainer.averaged("ema"), "swa": trainer.averaged("swa")}
    return {
        name: trainer.evaluate(patients, params=p)["loss"] - least(patients)
        for name, p in params.items()
    }


if __name__ == "__main__":
    patients = data()
    trainer = Trainer(recipe)
    trainer.fit(patients)
    for name, found in excess(trainer, patients).items():
        print(f"{name}: {found:.5f} above least squares")
