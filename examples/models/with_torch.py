"""Makes `digits_cnn.onnx`, `code_gpt.onnx` and `code_bert.onnx`: networks that torch trains and
exports, as they come from elsewhere. The examples need the files alone.

    python examples/models/with_torch.py
"""

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import source_text  # noqa: E402  # it stands in the directory of the examples

WIDTH, HEADS, LAYERS, LENGTH, CHARACTERS = 40, 4, 2, 64, 128
MASK = 0  # a character that no text has


class CNN(nn.Module):
    """Of images f32[batch, 1, 8, 8], pixels from 0 to 1, one logit for each class."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.top = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24 * 4, classes)

    def forward(self, image):
        features = self.pool(self.top(self.pool(self.block(self.stem(image)))))
        return self.head(features.flatten(1))


class Attention(nn.Module):
    def __init__(self, is_causal):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.is_causal = is_causal
        self.register_buffer("seen", torch.ones(LENGTH, LENGTH).tril().bool(), persistent=False)

    def forward(self, x):
        batch, time, _ = x.shape
        query, key, value = (
            layer(x).view(batch, time, HEADS, WIDTH // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        if self.is_causal:
            scores = scores.masked_fill(~self.seen[:time, :time], -1e9)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, time, WIDTH)
        return self.output(mixed)


class Block(nn.Module):
    def __init__(self, is_causal):
        super().__init__()
        self.attention = Attention(is_causal)
        self.norm, self.wide_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.narrow(functional.gelu(self.wide(self.wide_norm(x))))


class Transformer(nn.Module):
    """Of texts i64[batch, time], ASCII codes, features f32[batch, time, 40]."""

    def __init__(self, is_causal):
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.layer = nn.ModuleList(Block(is_causal) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.characters.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)

    def forward(self, text):
        x = self.characters(text) + self.positions(torch.arange(text.shape[1]))
        for block in self.layer:
            x = block(x)
        return self.norm(x)


class GPT(Transformer):
    """After each character the logits of the next one, by the matrix that embeds characters."""

    def __init__(self):
        super().__init__(is_causal=True)

    def forward(self, text):
        return super().forward(text) @ self.characters.weight.T


class BERT(Transformer):
    def __init__(self):
        super().__init__(is_causal=False)


def trained(network, loss, data, steps, batch=32, rate=3e-3):
    """The network after so many steps of AdamW on random examples, on a cosine of rates."""
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        rows = torch.randint(len(data[0]), (batch,))
        optimizer.zero_grad()
        loss(*(array[rows] for array in data)).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def digits(classes):
    """The images and labels of these digits, without the 360 that `digits.py` holds out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == digit][:36] for digit in range(10)])
    rows = np.setdiff1d(order[np.isin(labels[order], classes)], held_out)
    pixels = torch.tensor(images[rows] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return pixels, torch.tensor(labels[rows])


def cnn(steps=1000):
    """A convolutional network that knows the digits 0 to 4, also where they are a pixel off."""
    torch.manual_seed(0)
    network = CNN(5)

    def loss(image, label):
        shift = tuple(torch.randint(-1, 2, (2,)).tolist())
        return functional.cross_entropy(network(image.roll(shift, (2, 3))), label)

    return trained(network, loss, digits(range(5)), steps)


def gpt(steps=3000):
    """A transformer that writes Python, a character at a time."""
    torch.manual_seed(0)
    network = GPT()
    text = torch.tensor(source_text.windows(source_text.TRAINED_ON, LENGTH))

    def loss(text):
        return functional.cross_entropy(network(text)[:, :-1].flatten(0, 1), text[:, 1:].flatten())

    return trained(network, loss, (text,), steps)


def bert(steps=3000):
    """An encoder that was trained to fill in characters of Python sources which were masked."""
    torch.manual_seed(0)
    network = BERT()
    text = torch.tensor(source_text.windows(source_text.TRAINED_ON, LENGTH))

    def loss(text):
        hidden = torch.rand(text.shape) < 0.15
        logits = network(text.masked_fill(hidden, MASK)) @ network.characters.weight.T
        return functional.cross_entropy(logits[hidden], text[hidden])

    return trained(network, loss, (text,), steps)


def export(network, name, example, inputs, outputs, axes, directory=HERE):
    """Writes the file, of any size of these axes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this exporter needs torch alone
        torch.onnx.export(
            network, (example,), str(Path(directory) / name), input_names=inputs,
            output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip


def export_all(directory=HERE, **steps):
    """Trains and writes all three."""
    text = torch.zeros(2, 8, dtype=torch.int64)
    each, every = {0: "batch"}, {0: "batch", 1: "time"}
    export(
        cnn(**steps), "digits_cnn.onnx", torch.zeros(2, 1, 8, 8), ["image"], ["logits"],
        {"image": each, "logits": each}, directory,
    )  # fmt: skip
    export(
        gpt(**steps), "code_gpt.onnx", text, ["text"], ["logits"],
        {"text": every, "logits": every}, directory,
    )  # fmt: skip
    export(
        bert(**steps), "code_bert.onnx", text, ["text"], ["hidden"],
        {"text": every, "hidden": every}, directory,
    )  # fmt: skip


if __name__ == "__main__":
    export_all()
