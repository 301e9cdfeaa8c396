"""Runs the examples' files in other runtimes, and writes what is found.

    python -m venv /tmp/runtimes
    /tmp/runtimes/bin/pip install openvino onnx2torch tinygrad
    python -m tests.runtimes --python /tmp/runtimes/bin/python

tinygrad needs clang on the PATH. What was found before of other runtimes or examples stays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import onnxruntime

from nncompile.backends.onnx import OPSET
from tests.cuda.examples import names
from tests.runtimes import files, one
from tests.runtimes.page import PAGE, RESULTS, reason, results, text

OPSETS = {"onnx2torch": 17}  # the newest that it has most operators of


def main() -> None:
    """Reads the arguments, runs, and writes the results and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", required=True, help="one that has the runtimes")
    parser.add_argument("--runtime", choices=one.RUNTIMES, action="append")
    parser.add_argument("--only", action="append", help="an example (may be repeated)")
    parser.add_argument("--seconds", default="60", help="longest time of a file")
    options = parser.parse_args()
    found = results() if RESULTS.is_file() else {"versions": {}, "results": {}}
    found["versions"]["onnxruntime"] = onnxruntime.__version__
    with tempfile.TemporaryDirectory() as root:
        for runtime in options.runtime or one.RUNTIMES:
            opset = OPSETS.get(runtime, OPSET)
            directory = Path(root) / str(opset)
            if not directory.is_dir():
                directory.mkdir()
                for name in options.only or names():
                    files.write(name, directory, opset)
            kept = found["results"].setdefault(runtime, {})
            command = [options.python, one.__file__, runtime, str(directory), options.seconds]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    answer = json.loads(line)
                    if "version" in answer:
                        found["versions"][runtime] = answer["version"]
                        continue
                    kept[answer.pop("file")] = answer
                    print(runtime, line.strip()[:160], reason(answer) or "right", flush=True)
            found["results"][runtime] = dict(sorted(kept.items()))
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(text(PAGE.read_text("utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
