"""The same networks in torch, their parameters under the same names."""

from benchmarks.networks.in_torch.images import (
    Autoencoder as autoencoder,
)
from benchmarks.networks.in_torch.images import (
    DenseNet as densenet,
)
from benchmarks.networks.in_torch.images import (
    LeNet as lenet,
)
from benchmarks.networks.in_torch.images import (
    ResNet as resnet,
)
from benchmarks.networks.in_torch.images import (
    Vgg as vgg,
)
from benchmarks.networks.in_torch.sequences import (
    Encoder as encoder,
)
from benchmarks.networks.in_torch.sequences import (
    Gpt as gpt,
)
from benchmarks.networks.in_torch.sequences import (
    Recurrent as recurrent,
)
from benchmarks.networks.in_torch.sequences import (
    Temporal as temporal,
)
from benchmarks.networks.in_torch.vectors import Bag as bag
from benchmarks.networks.in_torch.vectors import Perceptron as perceptron

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
