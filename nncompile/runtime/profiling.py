"""How long each node of a model takes, as onnxruntime measures it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import BackendError

_OF_NODES = "_kernel_time"  # what onnxruntime adds to the names of nodes
_RUN = "model_run"


@contextmanager
def profile_prefix() -> Iterator[str]:
    """What the names of profiles begin with, in a directory that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="nncompile-profile-") as directory:
        yield os.path.join(directory, "session")


def node_times(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The microseconds that each node took by itself, by name, in each run of the session that
    wrote the profile. A node with a graph within (a loop, a branch) counts without what runs of
    that graph, whose nodes stand for themselves. Raises `BackendError` where there is no run."""
    try:
        events = json.loads(Path(path).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as error:
        raise BackendError(f"onnxruntime's profile cannot be read: {error}") from None
    runs = [event for event in events if event.get("name") == _RUN]
    if not runs:
        raise BackendError(
            "onnxruntime's profile holds no whole run of the model",
            hint="it keeps a million nodes: profile fewer steps",
        )
    nodes = [event for event in events if _is_node(event)]
    # A node begins before those within it, and ends after them; of equal times, it is told last.
    order = sorted(range(len(nodes)), key=lambda i: (nodes[i]["ts"], -nodes[i]["dur"], -i))
    own = _own_times([nodes[i] for i in order])
    times: list[dict[str, float]] = [{} for _ in runs]
    ends = [run["ts"] + run["dur"] for run in runs]
    run = 0
    for i, microseconds in zip(order, own, strict=True):
        while run < len(runs) and nodes[i]["ts"] > ends[run]:
            run += 1
        if run == len(runs):
            break  # a run that was cut short
        name = nodes[i]["name"].removesuffix(_OF_NODES)
        times[run][name] = times[run].get(name, 0.0) + microseconds
    return times


def _is_node(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name")).endswith(_OF_NODES)


def _own_times(nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    """How long each took before the first and after the last of those within it. From one of them
    to the next it is mostly the measuring that takes time."""
    ends = [node["ts"] + node["dur"] for node in nodes]
    within: dict[int, tuple[int, int]] = {}  # from when to when others run
    around: list[int] = []
    for i, node in enumerate(nodes):
        while around and node["ts"] >= ends[around[-1]]:
            around.pop()
        if around:
            first, _ = within.get(around[-1], (node["ts"], 0))
            within[around[-1]] = first, ends[i]
        around.append(i)
    spans = [within.get(i, (0, 0)) for i in range(len(nodes))]
    pairs = zip(nodes, spans, strict=True)
    return [max(0.0, float(node["dur"] - (end - first))) for node, (first, end) in pairs]


def original_name(names: Mapping[str, Any]) -> Callable[[str], str | None]:
    """A function from the name of a node that ran to that of the node of the model that it was made
    of, one of `names`; None where that cannot be told.

    Where onnxruntime fuses nodes, it calls the result by one of them, with words before it
    (`fused net/gemm_1`) or behind it (`net/matmul_2/MatmulTransposeFusion/`). What it adds itself
    (`ReorderInput`, `Transpose_token_1`) belongs to none.
    """

    def find(name: str) -> str | None:
        name = name.removeprefix("fused ")
        end = len(name)
        while end > 0:
            if name[:end] in names:
                return name[:end]
            end = max(name.rfind("/", 0, end), name.rfind("_", 0, end))
        return None

    return find
