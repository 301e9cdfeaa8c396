"""The same networks in plain jax: functions of their parameters, which have the same names.

Images and series are laid out as jax's convolutions run fastest on processors, with their channels
last; `stored` and `fed` turn what the others take."""

from benchmarks.networks.in_jax.images import autoencoder, densenet, lenet, resnet, vgg
from benchmarks.networks.in_jax.layers import Scope, fed, stored
from benchmarks.networks.in_jax.sequences import encoder, gpt, recurrent, temporal
from benchmarks.networks.in_jax.vectors import bag, perceptron

__all__ = ["NETWORKS", "Scope", "fed", "stored"]

NETWORKS = {
    network.__name__: network
    for network in (
        *(autoencoder, densenet, lenet, resnet, vgg),
        *(encoder, gpt, recurrent, temporal),
        *(bag, perceptron),
    )
}
