"""The gradient of a convolution at its weights in a loop over the examples of a batch.

On a processor it takes half to nine tenths of the time of `weight_gradient`, which goes through
memory nine times for a kernel of 3 × 3: of one example, all that is needed stays in the cache
(docs/decisions/0087-gradients-at-weights-go-example-by-example.md). On a GPU it would take many
times as long, so files that are exported never hold it.
"""

from __future__ import annotations

import math

from nncompile.ir.dims import dim, product
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.op import Value
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.convolution.lowering import FEW_CHANNELS, keeps_rows, within_rows
from nncompile.ops.loops.scan import scan
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape, swapaxes, transpose
from nncompile.ops.shape.slicing import padded, part
from nncompile.ops.windows.convolution import Window

# With as many places to a channel, the products of an example are not larger than what they are of.
MANY_PLACES = 2
# Numbers: as many of a batch in both arguments, and each tap of them, are more than the part of the
# cache that a thread has to itself.
FULL = 2**19


def goes_by_example(o: OnnxEmitter, window: Window, groups: int) -> bool:
    """Whether `by_example` is for the arguments of the node that is being lowered, and takes less
    time."""
    x, g = o.types
    if groups > 1 or math.prod(window.kernel) == 1 or not keeps_rows(x, g, window):
        return False
    # The threads share the examples of nodes of a batch, but the products of one example.
    numbers = o.usual(dim(product(x.shape) + product(g.shape)))
    if not o.threads or numbers is None or numbers < o.threads * FULL:
        return False
    channels, places = (x.shape[1], g.shape[1]), product(g.shape[2:])
    counts = [int(n) for n in (*channels, places) if isinstance(n, int)]
    return (
        len(counts) == 3
        and min(counts[:2]) >= FEW_CHANNELS
        and counts[2] >= MANY_PLACES * max(counts[:2])
    )


def by_example(x: Value, g: Value, window: Window) -> Value:
    """x[N, C, *sizes] and g[N, O, *sizes] to `[O, C, *kernel]`; see `weight_gradient`.

    Rows lie one behind the other. What a row of the kernel sees of x is one slice of it, where
    every column of the kernel has a g of its own, which is shifted. So for each row of the kernel
    it is one product, of as many g's one below the other as there are columns.
    """
    above, left, below, right = window.pads
    height, width = (int(n) for n in g.shape[2:])
    rows, columns = (
        range(0, extent, dilation)
        for extent, dilation in zip(window.extents, window.dilations, strict=True)
    )
    outs, ins = g.shape[1], x.shape[1]
    last = columns[-1]

    def products(x: Value, g: Value) -> tuple[Value, ...]:
        shifted = [padded(within_rows(g, i - left, width), (0, i), (0, last - i)) for i in columns]
        seen = concatenate(shifted, 0)
        joined = padded(x, (0, above * width + left), (0, below * width + right))
        slices = [part(joined, (0, i * width), (ins, height * width + last), (1, 1)) for i in rows]
        return tuple(matmul(seen, swapaxes(tap, 0, 1)) for tap in slices)

    flat = [reshape(a, (*a.shape[:2], product(a.shape[2:]))) for a in (x, g)]
    taps = concatenate([sum(y, 0) for y in scan(products, (), flat)], 0)
    split = reshape(taps, (len(rows), len(columns), outs, ins))
    return transpose(split, (2, 3, 0, 1))
