"""Faults in the server of models."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

SERVING = (
    Fault(
        "nncompile/program/rows.py",
        "all(rowwise(v) and rowwise.axes[v] == 0 for v in graph.outputs.values())",
        "True",
        "tests/test_serving.py",
    ),
    Fault(
        "nncompile/serving/models.py",
        "is_apart = rows or session.metadata.get(ROWS) == first",
        "is_apart = True",
        "tests/test_serving.py",
    ),
    Fault(
        "nncompile/serving/batching.py",
        "following.kind and following.kind == group[0].kind if group",
        "following.kind if group",
        "tests/test_serving_batches.py",
    ),
    Fault(
        "nncompile/serving/batching.py",
        "            return [self._answer(waiting.feeds) for waiting in group]",
        "            return [together for waiting in group]",
        "tests/test_serving_batches.py",
    ),
    Fault(
        "nncompile/serving/bodies.py",
        "            if len(body) > self._most:",
        "            if False:",
        "tests/test_serving.py",
    ),
    Fault(
        "nncompile/serving/tensors.py",
        "    if not is_kept.all():",
        "    if False:",
        "tests/test_serving.py",
    ),
    Fault(
        "nncompile/serving/messages.py",
        "    if rest:",
        "    if False:",
        "tests/test_serving.py",
    ),
    Fault(
        "nncompile/compiler/repositories.py",
        "    rows = METADATA_KEY in session.metadata",
        "    rows = True",
        "tests/test_repositories.py",
    ),
    Fault(
        "nncompile/compiler/repositories.py",
        '"\\n  reshape { shape: [ ] }" if rows and not shape else ""',
        '""',
        "tests/test_repositories.py",
    ),
    Fault(
        "nncompile/compiler/repositories.py",
        "        if target.is_file() and target.read_bytes() != text.encode():",
        "        if False:",
        "tests/test_repositories.py",
    ),
)
