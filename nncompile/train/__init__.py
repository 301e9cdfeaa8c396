"""Training through onnxruntime: the loop, its data and what watches it."""

from nncompile.train.data import Data
from nncompile.train.events import Callback, Event, History
from nncompile.train.trainer import Trainer

__all__ = ["Callback", "Data", "Event", "History", "Trainer"]
