"""What torch has kernels of: rules for graphs that go there and nowhere else."""

from __future__ import annotations

from nncompile.ir.dims import same_shape
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops import reshape, softmax, swapaxes
from nncompile.ops.contraction.attention import attention
from nncompile.ops.contraction.gemm import gemm
from nncompile.passes import same_outputs
from nncompile.passes.layout import transposes
from nncompile.passes.rewriter import Steps, rewrite, rule, uses


def native(graph: Graph) -> Graph:
    """The graph with torch's own kernels where they compute several nodes at once."""
    after = rewrite(graph, [add_into_linear, masked_attention, plain_attention])
    return graph if same_outputs(graph, after) else transposes(after)


@rule(f32[2, 3, 4], f32[4, 5], f32[5])
def add_into_linear(a: Value, b: Value, c: Value) -> Steps:
    """Products with one matrix and the bias added to them are one gemm of all rows."""
    product = a @ b
    yield product + c
    if a.rank < 3 or b.rank != 2:
        return "a matrix by a matrix is a gemm already"
    if uses(product) != 1:
        return "the product is also used without the sum"
    if c.rank != 1 or c.dtype is not product.dtype or not c.dtype.is_float:
        return f"{c.type} does not have one number for each column of {product.type}"
    yield reshape(gemm(reshape(a, (-1, a.shape[-1])), b, c), product.shape)


@rule(f32[2, 2, 3, 4], f32[2, 2, 4, 5], f32[2, 2, 5, 6], f32[3, 5])
def masked_attention(q: Value, k: Value, v: Value, bias: Value) -> Steps:
    """The scores of attention are not kept."""
    scores = q @ k
    summed = scores + bias
    weights = softmax(summed)
    yield weights @ v
    refused = _unfit(q, k, v, scores, summed, weights)
    if refused or same_shape(summed.shape, scores.shape) is not True or bias.dtype is not q.dtype:
        return refused or f"the bias {bias.type} does not fit the scores {scores.type}"
    yield attention(q, swapaxes(k, -1, -2), v, bias)


@rule(f32[2, 2, 3, 4], f32[2, 2, 4, 5], f32[2, 2, 5, 6])
def plain_attention(q: Value, k: Value, v: Value) -> Steps:
    """The same without a bias."""
    scores = q @ k
    weights = softmax(scores)
    yield weights @ v
    refused = _unfit(q, k, v, scores, weights)
    if refused:
        return refused
    yield attention(q, swapaxes(k, -1, -2), v)


def _unfit(q: Value, k: Value, v: Value, *between: Value) -> str:
    if q.rank < 3 or not q.dtype.is_float:
        return "torch's kernel needs floating-point numbers with axes before the positions"
    ahead = q.shape[:-2]
    if not all(same_shape(x.shape[:-2], ahead) is True for x in (k, v)):
        return "the leading axes of queries, keys and values differ"
    if any(uses(x) != 1 for x in between):
        return "the scores or the weights are also used"
    return ""
