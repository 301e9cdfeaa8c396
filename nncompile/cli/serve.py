"""Serves models over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.shared import ProviderName, out
from nncompile.cli.trained import is_run
from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.files import check_writable
from nncompile.diagnostics.tables import columns
from nncompile.serving.limits import Limits
from nncompile.serving.models import Served, ServedStep, opened
from nncompile.train import run_config

_HINT = "pip install 'nncompile[serve]'"
_MEGABYTE = 2**20
_NORMAL = Limits()


def serve(
    files: Annotated[
        list[Path], typer.Argument(metavar="MODEL.onnx|RUN...", help="Files or runs.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="that of the file")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: one that is free.")] = 8000,
    state: Annotated[
        Path | None,
        typer.Option(help="State of a training step.", show_default="STEP.state.safetensors"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Where the state of a training step is kept.")
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Rows of waiting requests that are computed together.")
    ] = _NORMAL.rows,
    delay: Annotated[
        float, typer.Option(min=0, metavar="MS", help="Milliseconds to wait for more of them.")
    ] = 1000 * _NORMAL.delay,
    rows_apart: Annotated[
        bool,
        typer.Option(
            "--rows-apart",
            help="Rows do not depend on each other, though the file says nothing of it.",
        ),
    ] = False,
    max_body: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Largest body of a request.")
    ] = _NORMAL.body / _MEGABYTE,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests that may be open at a time.")
    ] = _NORMAL.requests,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Longest time of a request.")
    ] = _NORMAL.timeout,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
) -> Outcome:
    """Serve models over HTTP, by the Open Inference Protocol (KServe v2).

    Requests that wait for a model are computed together, where its file says that rows do not
    depend on each other. A training step is trained on each request, which is a batch, and answers
    with the metrics. /metrics is for Prometheus. There is no encryption and no password: only this
    machine can connect, unless --host says otherwise. Ctrl-C ends the server when it has answered.

    \b
    Examples:
      nncompile serve model.onnx
      nncompile serve digits.onnx faces.onnx --port 9000 --threads 1
      nncompile serve step.onnx --save trained.safetensors
    """
    modules = {
        package: extra(module, package, "nncompile serve", _HINT)
        for package, module in {
            "prometheus_client": "nncompile.serving.measures",
            "fastapi": "nncompile.serving.application",
            "uvicorn": "nncompile.serving.server",
        }.items()
    }
    names = [name] if name is not None else [_name_of(file) for file in files]
    files = [_model_of(file) for file in files]
    if len(names) != len(files):
        raise FileError("--name is that of one model", hint="name the files as the models")
    twice = [n for n in names if names.count(n) > 1]
    if twice:
        raise FileError(f"two files are named {twice[0]}", hint="rename one, or serve it elsewhere")
    limits = Limits(max_requests, int(max_body * _MEGABYTE), max_batch, delay / 1000, timeout)
    models: list[Served] = [
        opened(file, served, provider, threads, rows_apart, state, save)
        for file, served in zip(files, names, strict=True)
    ]
    steps = [served.name for served in models if isinstance(served, ServedStep)]
    if (state is not None or save is not None) and len(steps) != 1:
        raise FileError(
            f"--state and --save are those of one training step, got {len(steps) or 'none'}",
            hint="serve others in a process of their own",
        )
    if save is not None:
        check_writable(save.parent)

    def started(url: str) -> None:
        out.print(columns([_described(served) for served in models]))
        out.print(f"serving on {url}, until Ctrl-C")
        out.file.flush()

    modules["uvicorn"].serve(models, host, port, limits, started)
    out.print("stopped")
    return Outcome({"models": names})


def _model_of(path: Path) -> Path:
    """The ONNX file at the path, or of the run there. Raises `FileError` for a model file."""
    if path.suffix == ".py" and path.is_file():
        raise FileError(
            f"{path} is a model file in Python: compile it first", hint=f"nncompile compile {path}"
        )
    return path / "model.onnx" if is_run(path) else path


def _name_of(path: Path) -> str:
    """The name of the model of a run, or that of a file."""
    return str(run_config.read(path).get("model")) if is_run(path) else path.stem


def _described(served: Served) -> tuple[str, ...]:
    inputs, outputs = (", ".join(map(str, ports)) for ports in (served.inputs, served.outputs))
    return served.name, inputs, "→", outputs
