"""The same networks in torch, their parameters under the same names."""

from benchmarks.networks.in_torch.images import Autoencoder, DenseNet, LeNet, ResNet, Vgg
from benchmarks.networks.in_torch.sequences import Encoder, Gpt, Recurrent, Temporal
from benchmarks.networks.in_torch.vectors import Bag, Perceptron

NETWORKS = {
    "autoencoder": Autoencoder,
    "bag": Bag,
    "densenet": DenseNet,
    "encoder": Encoder,
    "gpt": Gpt,
    "lenet": LeNet,
    "perceptron": Perceptron,
    "recurrent": Recurrent,
    "resnet": ResNet,
    "temporal": Temporal,
    "vgg": Vgg,
}
