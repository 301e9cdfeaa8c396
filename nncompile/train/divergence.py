"""The error of a loss that is not finite."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.diagnostics.errors import Row, TrainingError
from nncompile.train.locate import NonFinite

_SPOILED = "; an earlier step spoiled the state: callbacks=[CheckFinite()] says where"
_NARROW = "f16 ends at 65504: x.astype(f32) before it, or scale what it holds; "
_BOUND = "bound them, np.clip(...), or remove those examples; if they are meant, "


def diverged(
    loss: str,
    moment: str,
    data: str,
    rows: Sequence[Row],
    are_data_infinite: bool,
    origin: NonFinite | None,
) -> TrainingError:
    """The error for a `loss` (`loss is nan`) at a moment of a training on `data`. The `rows` show
    the infinite data, or else the node (`origin`) where numbers stop being finite."""
    hint = _BOUND if are_data_infinite else _NARROW if origin and origin.is_narrow else ""
    return TrainingError(
        f"{loss} at {moment}; the {data} are {'not all ' if are_data_infinite else ''}finite",
        rows=rows,
        hint=f"{hint}lower the learning rate, warm it up, or bound "
        "the gradients: clip_norm=1.0; take log and divide only where the argument cannot be zero"
        + (_SPOILED if origin and origin.is_state else ""),
    )
