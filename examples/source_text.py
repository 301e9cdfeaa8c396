"""Real text for the character models: the sources of Python's own standard library.

Also how text is made with an exported model, by plain onnxruntime: one character at a time, the
text so far given again each time, so that the length of the input grows from run to run.
"""

import importlib.util
from pathlib import Path

import numpy as np

# fmt: off
TRAINED_ON = (
    "argparse", "ast", "calendar", "cmd", "codeop", "configparser", "contextlib", "csv",
    "dataclasses", "difflib", "dis", "enum", "filecmp", "fileinput", "fractions", "functools",
    "getopt", "glob", "gzip", "heapq", "inspect", "json.encoder", "linecache", "locale", "mailbox",
    "mimetypes", "netrc", "numbers", "pathlib", "pdb", "pickle", "pprint", "random", "sched",
    "selectors", "shelve", "shlex", "shutil", "socket", "statistics", "string", "tarfile",
    "tempfile", "timeit", "tokenize", "trace", "traceback", "typing", "unittest.case", "uuid",
    "weakref", "zipfile",
)
# fmt: on
HELD_OUT = ("optparse", "json.decoder", "textwrap", "queue", "bisect")


def source(module):
    """The source of a module, as the codes of its ASCII characters; four blanks are one tab."""
    found = importlib.util.find_spec(module)
    text = Path(found.origin).read_text(encoding="utf-8").replace("    ", "\t")
    return np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)


def windows(modules, length):
    """The texts one after another, cut to pieces of one length: i64[pieces, length]."""
    text = np.concatenate([source(module) for module in modules])
    return text[: len(text) // length * length].reshape(-1, length)


def data(length=64):
    """Pieces of text to train on, and those of other modules to measure on."""
    return {"text": windows(TRAINED_ON, length)}, {"text": windows(HELD_OUT, length)}


def continued(session, prompt, count, window=64, warmth=0.7, seed=0):
    """The prompt and `count` characters more, drawn from what the model in the session finds
    probable; it sees the last `window` characters. A lower `warmth` keeps to the most probable."""
    random = np.random.default_rng(seed)
    codes = list(prompt.encode("ascii"))
    for _ in range(count):
        text = np.array([codes[-window:]], np.int64)
        (logits,) = session.run(["logits"], {"text": text})
        scores = logits[0, -1].astype(np.float64) / warmth
        chances = np.exp(scores - scores.max())
        codes.append(int(random.choice(len(chances), p=chances / chances.sum())))
    return bytes(codes).decode("ascii")
