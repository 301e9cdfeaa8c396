"""A page of the documentation as a program: its Python is run in order, its files are written, its
commands are called.

- ```` ```python ```` runs, after what came before it on the page.
- ```` ```python title="net.py" ```` is the file of that name beside the others.
- ```` ```console ```` calls `$ nncompile …` and `$ python …`; what they print is not compared.
- An HTML comment that begins with `<!-- python` runs, and readers do not see it.
"""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from typer.testing import CliRunner

from nncompile.cli.app import app

_PARTS = re.compile(
    r"^```(?P<language>python|console)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$"
    r"|^<!-- python\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Part:
    """A piece of code of a page: `python`, a `file` of that title, or `console`."""

    kind: str
    text: str
    line: int
    title: str = ""


def parts_of(page: Path) -> Iterator[Part]:
    """The code of the page, in its order."""
    content = page.read_text("utf-8")
    for match in _PARTS.finditer(content):
        language, title, text, hidden = match.group("language", "title", "text", "hidden")
        line = content[: match.start()].count("\n") + 1
        if hidden is not None:
            yield Part("python", hidden, line)
        elif title:
            yield Part("file", text, line, title)
        else:
            yield Part(language, text, line)


def packages_of(page: Path) -> set[str]:
    """The packages that the code of the page imports."""
    sources = [part.text for part in parts_of(page) if part.kind != "console"]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def run_page(page: Path, folder: Path) -> ModuleType:
    """Runs the code of the page in `folder`, the working directory, and returns its names."""
    module = ModuleType("page")
    module.__file__ = str(folder / "page.py")
    known = set(sys.modules)
    sys.modules["page"] = module  # where classes of the page are looked up
    sys.path.insert(0, str(folder))
    try:
        for part in parts_of(page):
            if part.kind == "file":
                (folder / part.title).write_text(part.text, "utf-8")
            elif part.kind == "console":
                _call(part, page)
            else:  # its lines are those of the page in a traceback
                source = "\n" * part.line + part.text
                exec(compile(source, str(page), "exec"), module.__dict__)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name == "page" or name not in known]:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
                del sys.modules[name]
    return module


def _call(part: Part, page: Path) -> None:
    """Calls the commands of a console, which must succeed."""
    text = part.text.replace("\\\n", " ")
    for line in re.findall(r"^\$ (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
        program, *arguments = shlex.split(line)
        place = f"{page.name}:{part.line}: {line}"
        if program == "nncompile":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"{place}\n{result.output}"
        elif program == "python":
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            raise AssertionError(f"{place}: a page calls nncompile and python")
