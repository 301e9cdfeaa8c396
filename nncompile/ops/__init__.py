"""The ops: one class knows all of an operation. The functions here apply them, under numpy's
names. Importing this package registers every op, operator and method."""

from nncompile.ir.basic import size_value
from nncompile.ir.dispatch import register
from nncompile.ops import array_functions, image_functions, network_functions
from nncompile.ops.array_functions import *
from nncompile.ops.contraction.attention import attention
from nncompile.ops.image_functions import *
from nncompile.ops.network_functions import *
from nncompile.ops.random.generator import (
    bernoulli,
    dropout,
    normal,
    permutation,
    randint,
    random_bits,
    random_key,
    seed_leaf,
    step_leaf,
    truncated_normal,
    uniform,
)
from nncompile.ops.reduction.extremes import max, min
from nncompile.ops.reduction.statistics import all, any
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.gathering import add_along_axis
from nncompile.ops.shape.getitem import getitem
from nncompile.ops.shape.joining import shape_value
from nncompile.ops.shape.reshape import flatten

__all__ = [
    "add_along_axis",
    "all",
    "any",
    "attention",
    "bernoulli",
    "dropout",
    "flatten",
    "getitem",
    "max",
    "min",
    "normal",
    "permutation",
    "randint",
    "random_bits",
    "random_key",
    "seed_leaf",
    "shape_value",
    "size_value",
    "step_leaf",
    "sum",
    "truncated_normal",
    "uniform",
]
__all__ += array_functions.__all__
__all__ += image_functions.__all__
__all__ += network_functions.__all__

for _name in __all__:  # so that a value knows that they are functions where it is asked for them
    register(_name, globals()[_name])
