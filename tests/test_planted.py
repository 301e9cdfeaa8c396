"""Every fault of `python -m tests.planted` can be planted, and its tests exist."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.planted import ROOT
from tests.planted_faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.file}: {f.old.strip()[:40]}")
def test_the_line_of_a_fault_is_there_once(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    assert fault.new != fault.old
    paths = [x for x in shlex.split(fault.tests) if x.startswith("tests/")]
    assert paths
    # Cases are named by what is in the file of the fault: ops, rules and passes.
    files = [fault.file, *(path.partition("::")[0] for path in paths)]
    text = " ".join([fault.file, *((ROOT / file).read_text() for file in files)]).lower()
    expression = fault.tests.partition(" -k ")[2]
    words = set(re.findall(r"\w+", expression)) - {"and", "or", "not"}
    unknown = [word for word in words if word.lower() not in text]
    assert not unknown, "-k has words that are in no test's name"


def test_no_fault_is_planted_twice() -> None:
    assert len({(f.file, f.old, f.new) for f in FAULTS}) == len(FAULTS)
