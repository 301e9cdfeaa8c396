"""Small nets of torch, written to ONNX files by its exporters, and their gradients in torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
SIZES = {0: "batch", 1: "seq"}


@dataclass(frozen=True)
class Net:
    """A module, its inputs at one size, and which axes of them are open."""

    module: Any
    feeds: Arrays
    sizes: Mapping[str, Mapping[int, str]]
    options: Mapping[str, Any] = field(default_factory=dict)  # of the exporter

    def written(self, torch: Any, path: Path, **options: Any) -> Path:
        """Its file, by torch's older exporter unless `dynamo` is asked for."""
        chosen = {"dynamo": False, "opset_version": 17, **self.options, **options}
        sizes: Any = {"dynamic_axes": self.sizes}
        if chosen["dynamo"]:
            dims = {s: torch.export.Dim(s) for axes in self.sizes.values() for s in axes.values()}
            shapes = [{i: dims[s] for i, s in axes.items()} for axes in self.sizes.values()]
            sizes = {"dynamic_shapes": tuple(shapes)}
        inputs = tuple(torch.from_numpy(x) for x in self.feeds.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of exporters, about themselves
            torch.onnx.export(
                self.module.eval(), inputs, str(path), input_names=list(self.feeds),
                output_names=["y"], verbose=False, **sizes, **chosen,
            )  # fmt: skip
        return path

    def laid(self, tensors: Arrays) -> Arrays:
        """Tensors of the module's parameters as ONNX has them: those of recurrent layers together
        and in its order."""
        layer = getattr(self.module, "r", None)
        if layer is None:
            return tensors
        plain = {n: x for n, x in tensors.items() if not n.startswith("r.")}
        firsts = [n for n in tensors if n.startswith("r.") and not n.endswith("_reverse")]
        kept = [n for n in firsts if "bias_hh" not in n]
        return plain | {n: in_onnx_order(n, tensors, type(layer).__name__) for n in kept}

    def gradients(self, torch: Any, factor: Any) -> Arrays:
        """Those of Σ y·factor in double, by the names of parameters."""
        inputs = [torch.from_numpy(x) for x in self.feeds.values()]
        self.module.double().zero_grad()
        y = self.module(*(x.double() if x.is_floating_point() else x for x in inputs))
        (y * torch.from_numpy(factor)).sum().backward()
        found = {name: p.grad.numpy() for name, p in self.module.named_parameters()}
        self.module.zero_grad()
        self.module.float()
        return found


def _ids(classes: int, *shape: int) -> Any:
    return np.random.default_rng(0).integers(0, classes, shape)


def _images(*shape: int) -> Any:
    """Images on a plain ground, of which convolutions without bias make zeros."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[..., : shape[-1] // 2] = 0
    return x


def convolutional(torch: Any) -> Net:
    """With batch normalization that the exporter keeps, a depthwise kernel, and kinks at 0."""
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.LeakyReLU(0.1),
        nn.BatchNorm2d(6),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.BatchNorm2d(6),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    for layer in (module[2], module[5]):
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.running_var, 0.5, 2)
        nn.init.uniform_(layer.weight, 0.5, 2)
    feeds = {"x": _images(6, 3, 8, 8)}
    options = {"training": torch.onnx.TrainingMode.PRESERVE}
    return Net(module, feeds, {"x": {0: "batch"}}, options)


def _attention(torch: Any, width: int, heads: int, is_causal: bool) -> Any:
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

        def forward(self, x: Any, mask: Any = None) -> Any:
            batch, time, _ = x.shape
            parts = self.qkv(self.before(x)).split(width, -1)
            q, k, v = (p.view(batch, time, heads, -1).transpose(1, 2) for p in parts)
            scores = q @ k.transpose(-2, -1) / (width // heads) ** 0.5
            if is_causal:
                future = torch.ones(time, time).triu(1).bool()
                scores = scores.masked_fill(future, float("-inf"))
            if mask is not None:
                scores = scores + (1 - mask[:, None, None, :].to(x.dtype)) * -1e4
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, width)
            x = x + self.out(y)
            return x + self.narrow(functional.gelu(self.wide(self.after(x))))

    return Block()


def language_model(torch: Any) -> Net:
    """A GPT whose last layer is its embedding."""
    nn = torch.nn

    class Gpt(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(20, 8), nn.Embedding(16, 8)
            self.block, self.norm = _attention(torch, 8, 2, True), nn.LayerNorm(8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.tok.weight

        def forward(self, ids: Any) -> Any:
            x = self.tok(ids) + self.pos(torch.arange(ids.shape[1]))
            return self.head(self.norm(self.block(x)))

    return Net(Gpt(), {"ids": _ids(20, 2, 5)}, {"ids": SIZES})


def encoder(torch: Any) -> Net:
    """A transformer's encoder with a mask, and a scalar that is a parameter."""
    nn = torch.nn

    class Encoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.block = nn.Embedding(20, 8), _attention(torch, 8, 2, False)
            self.slope, self.score = nn.PReLU(), nn.Linear(8, 1)

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.score(self.slope(self.block(self.tok(ids), mask)[:, 0]))

    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return Net(Encoder(), {"ids": _ids(20, 2, 5), "mask": mask}, {"ids": SIZES, "mask": SIZES})


def _recurrent(torch: Any, kind: str, layers: int) -> Net:
    nn = torch.nn

    class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tok = nn.Embedding(20, 6)
            layer = getattr(nn, kind)
            self.r = layer(6, 4, layers, batch_first=True, bidirectional=layers == 1)
            self.fc = nn.Linear(8 if layers == 1 else 4, 3)

        def forward(self, ids: Any) -> Any:
            return self.fc(self.r(self.tok(ids))[0].mean(1))

    return Net(Recurrent(), {"ids": _ids(20, 2, 5)}, {"ids": SIZES})


def lstm(torch: Any) -> Net:
    """Two layers of an LSTM."""
    return _recurrent(torch, "LSTM", 2)


def gru(torch: Any) -> Net:
    """A GRU in both directions."""
    return _recurrent(torch, "GRU", 1)


def unet(torch: Any) -> Net:
    """Down and up again, between pixels and to the nearest, with what was before beside it."""
    nn, functional = torch.nn, torch.nn.functional

    class Unet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            sizes = ((1, 4), (4, 6), (10, 4), (4, 2))
            self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in sizes)

        def forward(self, x: Any) -> Any:
            first = functional.elu(self.layers[0](x))
            deep = torch.relu(self.layers[1](functional.max_pool2d(first, 2)))
            up = functional.interpolate(deep, scale_factor=2, mode="bilinear")
            joined = torch.relu(self.layers[2](torch.cat((first, up), 1)))
            return functional.interpolate(self.layers[3](joined), scale_factor=2, mode="nearest")

    return Net(Unet(), {"x": _images(2, 1, 8, 8)}, {"x": {0: "batch"}})


NETS: dict[str, Callable[[Any], Net]] = {
    f.__name__: f for f in (unet, convolutional, language_model, encoder, lstm, gru)
}

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}  # ONNX's, by their places in torch's


def in_onnx_order(name: str, tensors: Arrays, kind: str) -> Any:
    """A tensor of a recurrent layer as ONNX has it: `name` is of the first direction, without it
    and `_ih` or `_hh`: `r.weight_ih_l0`; a bias is that of inputs and states."""
    order = _GATES[kind]

    def turned(x: Any) -> Any:
        parts = np.split(x, len(order))
        return np.concatenate([parts[i] for i in order])

    found = []
    for direction in ("", "_reverse"):
        own = [f"{name}{direction}"]
        if "bias_ih" in name:
            own.append(own[0].replace("bias_ih", "bias_hh"))
        if own[0] in tensors:
            found.append(np.concatenate([turned(tensors[n]) for n in own]))
    return np.stack(found)
