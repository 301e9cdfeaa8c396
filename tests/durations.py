"""How long each test takes, which decides what `make quick` and `make test` leave out:

    python -m tests.durations                     # measures all; a quarter of an hour
    python -m tests.durations tests/test_scan.py  # those of a file

The result is in `durations.txt`, to be committed: the mean seconds of a case of each test, but for
the short ones. A test that has no line is short. Nothing else may run meanwhile.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import pytest

from tests.matrix import SIDE_BY_SIDE

FILE = Path(__file__).with_suffix(".txt")
SHORT = 0.04  # seconds; what takes less has no line
EVERY = 8  # of the cases of a test, so many make one of a sample: the first, and then every eighth


@dataclass(frozen=True)
class Selection:
    """What one command takes: tests whose cases take at most `longest` seconds, all of their cases
    where these take less than `whole`, and else a sample. The others get the mark `left_out`."""

    left_out: str
    longest: float
    whole: float

    def takes(self, seconds: float, number: int) -> bool:
        """Whether it takes the case of that number of a test whose cases take so long."""
        return seconds <= self.longest and (seconds < self.whole or number % EVERY == 0)


SELECTIONS = (Selection("slow", 0.04, 0.0), Selection("thorough", 0.3, 0.1))
"""Those of `make quick` and of `make test`."""


def test_of(case: str) -> str:
    """The test of a case, both as pytest names them."""
    return case.partition("[")[0]


@functools.cache
def durations(file: Path = FILE) -> Mapping[str, float]:
    """The mean seconds of a case of each test that the file names."""
    lines = [line.split(maxsplit=1) for line in file.read_text("utf-8").splitlines()]
    return {test: float(seconds) for seconds, test in lines}


@dataclass
class Stopwatch:
    """A plugin of pytest that adds up what each case of each test takes."""

    cases: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        of_test = self.cases[test_of(report.nodeid)]
        of_test[report.nodeid] = of_test.get(report.nodeid, 0.0) + report.duration

    def lines(self, before: Mapping[str, float]) -> str:
        """The file, where it held `before`: what it says of other tests stays."""
        means = {test: mean(cases.values()) for test, cases in self.cases.items()}
        found = {test: seconds for test, seconds in {**before, **means}.items() if seconds >= SHORT}
        return "".join(f"{seconds:.2f} {test}\n" for test, seconds in sorted(found.items()))


def main(arguments: Collection[str]) -> int:
    """Measures, writes the file where all tests pass, and returns the exit code of pytest."""
    watch = Stopwatch()
    code = pytest.main(["-q", *SIDE_BY_SIDE, *arguments], plugins=[watch])
    if code == pytest.ExitCode.OK:
        FILE.write_text(watch.lines(durations() if arguments else {}), "utf-8")
    else:
        print(f"{FILE.name} is as it was: not all tests passed", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
