"""The networks as a user of the language writes them."""

from benchmarks.networks.in_dsl.images import autoencoder, densenet, lenet, resnet, vgg
from benchmarks.networks.in_dsl.sequences import encoder, gpt, recurrent, temporal
from benchmarks.networks.in_dsl.vectors import bag, perceptron

NETWORKS = {
    network.__name__: network
    for network in (
        *(autoencoder, densenet, lenet, resnet, vgg),
        *(encoder, gpt, recurrent, temporal),
        *(bag, perceptron),
    )
}
