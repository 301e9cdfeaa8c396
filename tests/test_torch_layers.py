"""Weights of each kind of torch's layers in models, and back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import (
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Bilinear,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dense,
    DepthwiseConv2d,
    Embedding,
    EmbeddingBag,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    LayerNorm,
    LSTMCell,
    MultiHeadAttention,
    PReLU,
    RMSNorm,
    RNNCell,
    TransformerDecoder,
    TransformerEncoder,
    TransformerEncoderLayer,
    f32,
    f64,
    i64,
    model,
)
from nncompile import from_torch_state_dict, to_torch_state_dict
from nncompile.ir.interpreter import evaluate
from nncompile.program.model import Model
from tests.tolerances import assert_close
from tests.torch_layers import agrees, drawn, of, shaken

Case = tuple[Callable[[Any], Any], Callable[[], Model], tuple[int, ...]]
CASES: dict[str, Case] = {
    "Linear": (lambda n: n.Linear(5, 5), lambda: of(Dense(5), f32["n", 5]), (3,)),
    "Linear, no bias": (
        lambda n: n.Linear(5, 4, bias=False),
        lambda: of(Dense(4, bias=False), f32["n", 5]),
        (3,),
    ),
    "Conv1d": (
        lambda n: n.Conv1d(4, 6, 3, groups=2),
        lambda: of(Conv1d(6, 3, groups=2), f32["n", 4, 9]),
        (2,),
    ),
    "Conv2d": (
        lambda n: n.Conv2d(3, 3, 3, padding=1),
        lambda: of(Conv2d(3, 3, padding=1), f32["n", 3, "h", "w"]),
        (2, 5, 6),
    ),
    "Conv3d": (lambda n: n.Conv3d(1, 2, 2), lambda: of(Conv3d(2, 2), f32["n", 1, 3, 4, 5]), (2,)),
    "depthwise": (
        lambda n: n.Conv2d(3, 6, 3, groups=3),
        lambda: of(DepthwiseConv2d(3, depth_multiplier=2), f32["n", 3, 5, 5]),
        (2,),
    ),
    "ConvTranspose1d": (
        lambda n: n.ConvTranspose1d(3, 4, 3, stride=2),
        lambda: of(ConvTranspose1d(4, 3, stride=2), f32["n", 3, 5]),
        (2,),
    ),
    "ConvTranspose2d": (
        lambda n: n.ConvTranspose2d(4, 4, 3, groups=2),
        lambda: of(ConvTranspose2d(4, 3, groups=2), f32["n", 4, 5, 5]),
        (2,),
    ),
    "ConvTranspose3d": (
        lambda n: n.ConvTranspose3d(2, 2, 2),
        lambda: of(ConvTranspose3d(2, 2), f32["n", 2, 3, 3, 3]),
        (2,),
    ),
    "BatchNorm": (
        lambda n: n.BatchNorm2d(3),
        lambda: of(BatchNorm(), f32["n", 3, 4, 4]),
        (2,),
    ),
    "LayerNorm": (lambda n: n.LayerNorm(6), lambda: of(LayerNorm(), f32["n", 6]), (3,)),
    "GroupNorm": (
        lambda n: n.GroupNorm(2, 6),
        lambda: of(GroupNorm(2), f32["n", 6, 4]),
        (3,),
    ),
    "InstanceNorm": (
        lambda n: n.InstanceNorm1d(3, affine=True),
        lambda: of(InstanceNorm(affine=True), f32["n", 3, 5]),
        (2,),
    ),
    "RMSNorm": (lambda n: n.RMSNorm(6), lambda: of(RMSNorm(), f32["n", 6]), (3,)),
    "PReLU": (lambda n: n.PReLU(4), lambda: of(PReLU(axis=1), f32["n", 4]), (3,)),
    "PReLU, one": (lambda n: n.PReLU(), lambda: of(PReLU(), f32["n", 4]), (3,)),
    "Embedding": (lambda n: n.Embedding(5, 5), lambda: of(Embedding(5, 5), i64["n"]), (7,)),
    "RNN": (
        lambda n: n.RNN(4, 4, batch_first=True),
        lambda: of(RNN(4, return_sequences=True), f32["n", "t", 4]),
        (2, 5),
    ),
    "LSTM": (
        lambda n: n.LSTM(3, 4, 2, bidirectional=True, batch_first=True),
        lambda: of(LSTM(4, True, True, 2), f32["n", "t", 3]),
        (2, 5),
    ),
    "GRU": (
        lambda n: n.GRU(4, 4, batch_first=True, bidirectional=True),
        lambda: of(GRU(4, True, True), f32["n", "t", 4]),
        (2, 5),
    ),
    "TransformerEncoderLayer": (
        lambda n: n.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True),
        lambda: of(TransformerEncoderLayer(2, 12), f32["n", "t", 8]),
        (2, 5),
    ),
    "TransformerEncoder": (
        lambda n: n.TransformerEncoder(
            n.TransformerEncoderLayer(
                8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True
            ),
            2,
            n.LayerNorm(8),
            enable_nested_tensor=False,
        ),
        lambda: of(TransformerEncoder(2, 12, norm_first=True, num_layers=2), f32["n", "t", 8]),
        (2, 5),
    ),
    "BatchNorm, cumulative": (
        lambda n: n.BatchNorm1d(3, momentum=None),
        lambda: of(BatchNorm(momentum=None), f32["n", 3]),
        (4,),
    ),
    "BatchNorm of the batch": (
        lambda n: n.BatchNorm1d(3, track_running_stats=False),
        lambda: of(BatchNorm(track_running_stats=False), f32["n", 3]),
        (4,),
    ),
    "BatchNorm, no bias": (
        lambda n: n.BatchNorm1d(3, bias=False),
        lambda: of(BatchNorm(bias=False), f32["n", 3]),
        (4,),
    ),
    "LayerNorm, no bias": (
        lambda n: n.LayerNorm(6, bias=False),
        lambda: of(LayerNorm(bias=False), f32["n", 6]),
        (3,),
    ),
    "GroupNorm, no bias": (
        lambda n: n.GroupNorm(2, 6, bias=False),
        lambda: of(GroupNorm(2, bias=False), f32["n", 6, 4]),
        (3,),
    ),
    "InstanceNorm, no bias": (
        lambda n: n.InstanceNorm1d(3, affine=True, bias=False),
        lambda: of(InstanceNorm(affine=True, bias=False), f32["n", 3, 5]),
        (2,),
    ),
    "Conv2d, no bias": (
        lambda n: n.Conv2d(3, 4, 3, bias=False),
        lambda: of(Conv2d(4, 3, bias=False), f32["n", 3, 5, 5]),
        (2,),
    ),
    "ConvTranspose2d, no bias": (
        lambda n: n.ConvTranspose2d(3, 4, 3, bias=False),
        lambda: of(ConvTranspose2d(4, 3, bias=False), f32["n", 3, 5, 5]),
        (2,),
    ),
    "GRU, no bias": (
        lambda n: n.GRU(4, 3, batch_first=True, bias=False),
        lambda: of(GRU(3, True, bias=False), f32["n", "t", 4]),
        (2, 5),
    ),
    "TransformerEncoderLayer, no bias": (
        lambda n: n.TransformerEncoderLayer(
            8, 2, 12, 0.0, "gelu", batch_first=True, bias=False
        ),
        lambda: of(TransformerEncoderLayer(2, 12, bias=False), f32["n", "t", 8]),
        (2, 5),
    ),
    "RNNCell": (
        lambda n: n.RNNCell(4, 4), lambda: of(RNNCell(4), f32["n", 4]), (3,)
    ),
    "GRUCell": (lambda n: n.GRUCell(3, 4), lambda: of(GRUCell(4), f32["n", 3]), (3,)),
    "GRUCell, no bias": (
        lambda n: n.GRUCell(3, 4, bias=False),
        lambda: of(GRUCell(4, bias=False), f32["n", 3]),
        (3,),
    ),
    "EmbeddingBag": (
        lambda n: n.EmbeddingBag(5, 5), lambda: of(EmbeddingBag(5, 5), i64["n", 3]), (4,)
    ),
    "double": (lambda n: n.Linear(3, 2).double(), lambda: of(Dense(2), f64["n", 3]), (3,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_layer(name: str, torchscript: SimpleNamespace) -> None:
    """The weights of torch's layer make ours compute the same, and come back as they were."""
    torch = torchscript.torch
    make, ours, sizes = CASES[name]
    module, net = shaken(torch, make(torch.nn)), ours()
    params = from_torch_state_dict(module.state_dict(), net)
    agrees(torch, module, net, params, *sizes)
    back = to_torch_state_dict(params, net, names=module)
    for key, x in module.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(back[key], x), key
    make(torch.nn).load_state_dict(back)  # nothing missing, nothing unexpected
    plain = to_torch_state_dict(params, net)
    assert list(plain) == list(params)
    again = from_torch_state_dict(plain, net)
    assert all(np.array_equal(again[path], x) for path, x in params.items())


def test_layers_of_two_values(torchscript: SimpleNamespace) -> None:
    nn = torchscript.torch.nn
    for theirs, ours, second in (
        (nn.Bilinear(8, 6, 4), Bilinear(4), 6),
        (nn.Bilinear(8, 6, 4, bias=False), Bilinear(4, bias=False), 6),
        (nn.LSTMCell(8, 5), lambda x, h: LSTMCell(5, name="cell")(x, (h, 2 * h))[1], 5),
    ):
        module = shaken(torchscript.torch, theirs)
        net = of(ours, f32["n", 8], f32["n", second])
        params = from_torch_state_dict(module.state_dict(), net)
        feeds = drawn(net, 3, 3)
        x, y = (torchscript.torch.from_numpy(feeds[name]) for name in ("x", "memory"))
        with torchscript.torch.no_grad():
            given = (y, 2 * y) if isinstance(module, nn.LSTMCell) else y
            expected = module(x, given)
            expected = expected[1] if isinstance(expected, tuple) else expected
        found = evaluate(net.inference(), {**params, **feeds}, precision=np.float64)["y"]
        assert_close(expected.numpy(), found, "float32")
        back = to_torch_state_dict(params, net, names=module)
        assert all(torchscript.torch.equal(back[key], x) for key, x in module.state_dict().items())


def test_batch_normalizations_that_count_and_that_do_not(torchscript: SimpleNamespace) -> None:
    """By the order of the layers, and by name; torch has the counter in both."""
    torch = torchscript.torch
    theirs = torch.nn.Sequential(
        torch.nn.BatchNorm1d(3, momentum=None), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3)
    )
    for _ in range(2):
        theirs(torch.randn(5, 3))

    @model
    def net(x=f32["n", 3]):  # type: ignore[no-untyped-def]
        y = x >> BatchNorm(momentum=None, name="first") >> BatchNorm(name="second")
        return {"y": y >> Dense(3, name="last")}

    for names in (None, {"0": "first", "1": "second", "2": "last"}):
        params = from_torch_state_dict(theirs.state_dict(), net, names)
        assert params["first.num_batches_tracked"] == 2
        assert "second.num_batches_tracked" not in params
        back = to_torch_state_dict(params, net, names, like=theirs)
        assert back["0.num_batches_tracked"] == 2
        assert back["0.num_batches_tracked"].dtype == torch.int64


def test_attention(torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch
    for options in ({}, {"bias": False}, {"kdim": 6, "vdim": 6}):
        module = torch.nn.MultiheadAttention(8, 2, batch_first=True, **options)
        shaken(torch, module)
        width = options.get("kdim", 8)
        layer = MultiHeadAttention(2, bias=options.get("bias", True))
        net = of(layer, f32["n", "t", 8], f32["n", "s", width])
        params = from_torch_state_dict(module.state_dict(), net)
        feeds = drawn(net, 2, 5)
        feeds["memory"] = feeds["memory"][:, :4]
        x, memory = (torch.from_numpy(feeds[name]) for name in ("x", "memory"))
        with torch.no_grad():
            expected = module(x, memory, memory)[0].numpy()
        found = evaluate(net.inference(), {**params, **feeds}, precision=np.float64)["y"]
        assert_close(expected, found, "float32")
        back = to_torch_state_dict(params, net, names=module)
        assert all(torch.equal(back[key], x) for key, x in module.state_dict().items())


def test_a_decoder(torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch
    layer = torch.nn.TransformerDecoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True)
    module = shaken(torch, torch.nn.TransformerDecoder(layer, 2))
    net = of(TransformerDecoder(2, 12, num_layers=2), f32["n", "t", 8], f32["n", "s", 8])
    params = from_torch_state_dict(module.state_dict(), net)
    feeds = drawn(net, 2, 5)
    x, memory = (torch.from_numpy(feeds[name]) for name in ("x", "memory"))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(5)
    with torch.no_grad():
        expected = module(x, memory, tgt_mask=mask).numpy()
    found = evaluate(net.inference(), {**params, **feeds}, precision=np.float64)["y"]
    assert_close(expected, found, "float32")
