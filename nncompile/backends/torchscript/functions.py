"""Functions of tensors that generated source calls by name, and that files hold with it.

TorchScript compiles them: what they are written with is what it knows.
"""

# ruff: noqa: RUF005  TorchScript has no `[*a, b]`

import torch
from torch import Tensor


def convolution_weight_gradient(
    x: Tensor,
    gradient: Tensor,
    shape: list[int],
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    groups: int,
) -> Tensor:
    """The gradient of a convolution of x at its weights, which have that shape, from the gradient
    at its results.

    torch's float32 kernel for the CPU adds what all examples and places come to in one accumulator:
    of 1,000,000 products of positive numbers 2e-4 is lost. Here the examples, or strips of them,
    are made groups of a grouped convolution, with about 1024 places each, and the sums of these are
    added up. Other devices have more accumulators, and no use for so many groups.
    """
    most = 1024
    rank = len(strides)
    none = [0 for _ in range(rank)]
    output_mask = [False, True, False]
    height, width = gradient.size(2), 1
    for i in range(1, rank):
        width *= gradient.size(2 + i)
    if x.is_cpu and x.dtype == torch.float32 and gradient.size(0) * height * width > most:
        together = most // max(height * width, 1)
        if together == 0:
            # Strips of rows, as images: those of x have the rows that their results see.
            strips = (height * width + most - 1) // most
            rows = (height + strips - 1) // strips
            strips = (height + rows - 1) // rows
            step, extent = strides[0], dilations[0] * (shape[2] - 1) + 1
            behind = [0 for _ in range(2 * rank - 2)]
            seen = (rows * strips - 1) * step + extent - x.size(2) - pads[0]
            x = torch.nn.functional.pad(x, behind + [pads[0], seen])
            x = x.unfold(2, (rows - 1) * step + extent, rows * step)
            x = x.movedim(-1, 3).transpose(1, 2).flatten(0, 1)
            missing = rows * strips - height
            gradient = (
                torch.nn.functional.pad(gradient, behind + [0, missing])
                if missing > 0
                else gradient
            )
            gradient = gradient.unfold(2, rows, rows).movedim(-1, 3).transpose(1, 2).flatten(0, 1)
            pads = [0] + pads[1:]
            together = 1
        count = x.size(0) // together
        used = count * together
        total = torch.ops.aten.convolution_backward(
            gradient[:used].flatten(0, 1).unflatten(0, [together, count * gradient.size(1)]),
            x[:used].flatten(0, 1).unflatten(0, [together, count * x.size(1)]),
            gradient.new_zeros([1]).expand([count * shape[0]] + shape[1:]),  # only for its shape
            None, strides, pads, dilations, False, none, count * groups, output_mask,
        )[1].unflatten(0, [count, shape[0]]).sum(0)  # fmt: skip
        if used == x.size(0):
            return total
        rest = convolution_weight_gradient_of_few(
            x[used:], gradient[used:], shape, strides, pads, dilations, groups
        )
        return total + rest
    return convolution_weight_gradient_of_few(x, gradient, shape, strides, pads, dilations, groups)


def convolution_weight_gradient_of_few(
    x: Tensor,
    gradient: Tensor,
    shape: list[int],
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    groups: int,
) -> Tensor:
    """The same with one accumulator."""
    like, none = gradient.new_zeros([1]).expand(shape), [0 for _ in strides]
    output_mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, x, like, None, strides, pads, dilations, False, none, groups, output_mask
    )[1]
