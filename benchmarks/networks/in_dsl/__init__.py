"""The networks as a user of the language writes them."""

from benchmarks.networks.in_dsl.images import autoencoder, densenet, lenet, resnet, vgg
from benchmarks.networks.in_dsl.sequences import encoder, gpt, recurrent, temporal
from benchmarks.networks.in_dsl.vectors import bag, perceptron

__all__ = [
    "autoencoder",
    "bag",
    "densenet",
    "encoder",
    "gpt",
    "lenet",
    "perceptron",
    "recurrent",
    "resnet",
    "temporal",
    "vgg",
]
