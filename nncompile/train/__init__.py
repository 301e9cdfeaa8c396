"""Training through onnxruntime: the loop, its data and what watches it."""

from nncompile.diagnostics.errors import TrainingWarning
from nncompile.train.callbacks import CheckFinite, EarlyStopping, ModelCheckpoint
from nncompile.train.data import Data
from nncompile.train.events import Callback, Event
from nncompile.train.finder import RateSearch, lr_find
from nncompile.train.history import Best, History
from nncompile.train.hooks.mlflow_log import MLflowLog
from nncompile.train.hooks.optuna_pruning import OptunaPruning
from nncompile.train.hooks.wandb_log import WandbLog
from nncompile.train.learning_curve import LearningCurve, learning_curves
from nncompile.train.locate import NonFinite, locate_nonfinite
from nncompile.train.logs import CSVLog, JSONLog, TensorBoardLog
from nncompile.train.measurement import Measurement
from nncompile.train.monitor import Monitor, Probe
from nncompile.train.overfit import Overfit, overfit_one_batch
from nncompile.train.ragged import LengthBuckets, padded
from nncompile.train.run_directory import RunDirectory
from nncompile.train.sources.notes import DataNote
from nncompile.train.step_profile import LineTime, Profile, profile
from nncompile.train.trainer import Trainer

__all__ = [
    "Best",
    "CSVLog",
    "Callback",
    "CheckFinite",
    "Data",
    "DataNote",
    "EarlyStopping",
    "Event",
    "History",
    "JSONLog",
    "LearningCurve",
    "LengthBuckets",
    "LineTime",
    "MLflowLog",
    "Measurement",
    "ModelCheckpoint",
    "Monitor",
    "NonFinite",
    "OptunaPruning",
    "Overfit",
    "Probe",
    "Profile",
    "RateSearch",
    "RunDirectory",
    "TensorBoardLog",
    "Trainer",
    "TrainingWarning",
    "WandbLog",
    "learning_curves",
    "locate_nonfinite",
    "lr_find",
    "overfit_one_batch",
    "padded",
    "profile",
]
