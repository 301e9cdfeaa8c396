"""Models over HTTP: what a server answers, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dsl import Dense, bf16, boolean, cumsum, f16, f32, i64, model, mse, sgd, softmax, training, u8
from nncompile.compiler.compile import compile_step
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError, FeedError
from nncompile.program.model import Model
from nncompile.program.rows import METADATA_KEY, rows_apart
from nncompile.runtime import Session
from nncompile.runtime.stopping import Stop
from nncompile.serving.limits import Limits
from nncompile.serving.models import ServedModel, opened

pytest.importorskip("httpx", reason="the test client of fastapi needs it")
testclient = pytest.importorskip("fastapi.testclient", reason="the extra serve is not installed")
application = pytest.importorskip("nncompile.serving.application").application

INFER = "/v2/models/net/infer"
LENGTH = "Inference-Header-Content-Length"
X = np.arange(8, dtype=np.float32).reshape(2, 4) / 8


@model
def net(x=f32["batch", 4], shift=f32["batch"]):
    return {"y": (x >> Dense(3)) + shift.reshape(-1, 1), "most": x.argmax(-1)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(net, tmp_path_factory.mktemp("served") / "net.onnx", seed=0)[0]


@pytest.fixture
def client(file: Path) -> Iterator[Any]:
    served = ServedModel("net", Session(file, threads=1))
    app = application([served], Limits(body=4096, timeout=5))
    with testclient.TestClient(app) as client:
        yield client


def tensor(name: str, data: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    shape = list(np.shape(data))
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def request(**changes: Any) -> dict[str, Any]:
    return {"inputs": [tensor("x", X.tolist()), tensor("shift", [1.0, 2.0])], **changes}


def expected(file: Path) -> list[np.ndarray]:
    plain = onnxruntime.InferenceSession(file)
    return plain.run(["y", "most"], {"x": X, "shift": np.array([1, 2], np.float32)})


def test_it_says_what_it_serves(client: Any) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/net/ready").json() == {"name": "net", "ready": True}
    about = client.get("/v2/models/net").json()
    assert about["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    assert about["outputs"][1] == {"name": "most", "datatype": "INT64", "shape": [-1]}


def test_json_in_and_out(client: Any, file: Path) -> None:
    answer = client.post(INFER, json=request(id="7")).json()
    assert (answer["model_name"], answer["id"]) == ("net", "7")
    for output, y in zip(answer["outputs"], expected(file), strict=True):
        assert output["shape"] == list(y.shape)
        np.testing.assert_array_equal(np.array(output["data"], y.dtype).reshape(y.shape), y)
    flat = [tensor("x", X.tolist()) | {"data": X.ravel().tolist()}, tensor("shift", [1, 2])]
    answer = client.post(INFER, json={"inputs": flat, "outputs": [{"name": "most"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["most"]


def test_bytes_behind_the_json(client: Any, file: Path) -> None:
    parts = X.tobytes(), np.array([1, 2], np.float32).tobytes()
    inputs = [
        {"name": name, "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": n}}
        for name, shape, n in (("x", [2, 4], 32), ("shift", [2], 8))
    ]
    wanted = [{"name": "most"}, {"name": "y", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": inputs, "outputs": wanted}).encode()
    answer = client.post(
        INFER, content=b"".join((header, *parts)), headers={LENGTH: str(len(header))}
    )
    length = int(answer.headers[LENGTH])
    most, y = json.loads(answer.content[:length])["outputs"]
    assert (most["data"], y["parameters"]) == ([3, 3], {"binary_data_size": 24})
    assert answer.content[length:] == expected(file)[0].tobytes()


def changed(name: str, /, **changes: Any) -> dict[str, Any]:
    inputs = [x | changes if x["name"] == name else x for x in request()["inputs"]]
    return request(inputs=inputs)


def sized(size: Any) -> dict[str, Any]:
    return changed("x", parameters={"binary_data_size": size})


EMPTY = {"name": "x", "shape": [1], "datatype": "FP32"}
REFUSED = {
    "no JSON": ('{"inputs": [', {}, 400, "is not JSON"),
    "no text": (b"\xff\xfe{", {}, 400, "is not JSON"),
    "deep": ("[" * 4000, {}, 400, "too deep"),
    "a number without end": ("1" * 4001, {}, 400, "not an object"),
    "no object": ("[]", {}, 400, "not an object"),
    "no inputs": ({}, {}, 400, 'no "inputs"'),
    "no name": ({"inputs": [{}]}, {}, 400, 'no "name"'),
    "twice": (request(inputs=[tensor("x", [1.0])] * 2), {}, 400, "given twice"),
    "missing": (request(inputs=[tensor("x", X.tolist())]), {}, 400, "no data for input 'shift'"),
    "unknown": (changed("x", name="xx"), {}, 400, "is it 'x'?"),
    "another size": (changed("x", **tensor("x", [[1.0] * 3] * 2)), {}, 400, "size 3 on axis 1"),
    "another type": (changed("x", datatype="FP64"), {}, 400, "f64[2, 4]"),
    "text": (changed("x", datatype="BYTES"), {}, 400, "choose one of BOOL"),
    "words": (changed("x", data=["a"] * 8), {}, 400, "are not numbers"),
    "uneven": (changed("x", data=[[1.0], [1.0, 2.0]]), {}, 400, "of equal lengths"),
    "few": (changed("x", data=[1.0]), {}, 400, "shape is said to be [2, 4]"),
    "turned": (changed("x", data=X.T.tolist()), {}, 400, "shape is said to be [2, 4]"),
    "no data": (
        request(inputs=[{"name": "x", "shape": [1], "datatype": "FP32"}]),
        {},
        400,
        '"data"',
    ),
    "no shape": (changed("x", shape=[2, -4]), {}, 400, "not a list of sizes"),
    "nothing of no end": (changed("x", shape=[0, 2**62, 4], data=[]), {}, 400, "of no tensor"),
    "truths as sizes": (changed("x", shape=[True, 8]), {}, 400, "not a list of sizes"),
    "wide": (changed("x", data=[1e39] * 8), {}, 400, "numbers that FP32 has not"),
    "no output": (request(outputs=[{"name": "yy"}]), {}, 400, "did you mean 'y'?"),
    "outputs": (request(outputs=["y"]), {}, 400, '"outputs"'),
    "an id of numbers": (request(id=7), {}, 400, '"id"'),
    "parameters": (request(parameters=[]), {}, 400, '"parameters" of the request'),
    "shared memory": (request(parameters={"shared_memory_region": "a"}), {}, 400, "shared memory"),
    "classes": (
        request(outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        *({}, 400, "classifications"),
    ),
    "no bytes": (sized(32), {}, 400, "0 follow"),
    "bytes of no number": (sized("32"), {}, 400, "binary_data_size"),
    "a length beyond": (request(), {LENGTH: "99999"}, 400, LENGTH),
    "no length": (request(), {LENGTH: "-1"}, 400, LENGTH),
    "packed": (b"", {"Content-Encoding": "gzip"}, 415, "'gzip'"),
    "large": (b" " * 5000, {}, 413, "5,000 bytes, more than the limit of 4,096"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_cannot_be_met_is_told_why(client: Any, case: str) -> None:
    body, headers, status, reason = REFUSED[case]
    content = json.dumps(body) if isinstance(body, dict) else body
    answer = client.post(INFER, content=content, headers=headers)
    assert (answer.status_code, reason in answer.json()["error"]) == (status, True), answer.text
    assert "  at " not in answer.json()["error"]  # a line of a program
    assert client.post(INFER, json=request()).status_code == 200  # and it goes on


def test_bytes_that_belong_to_no_input(client: Any) -> None:
    header = json.dumps(request()).encode()
    headers = {LENGTH: str(len(header))}
    answer = client.post(INFER, content=header + b"1234", headers=headers)
    assert answer.json()["error"].startswith("4 bytes behind the JSON")


def test_a_body_without_a_length_is_cut_off(client: Any) -> None:
    answer = client.post(INFER, content=(b" " * 1000 for _ in range(9)))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert "more bytes than the limit of 4,096" in answer.json()["error"]


def test_paths_that_are_not_there(client: Any) -> None:
    answer = client.post("/v2/models/nett/infer", json=request())
    assert answer.status_code == 404 and "did you mean 'net'?" in answer.json()["error"]
    assert client.get("/v2/models/other").json()["error"].startswith("there is no model 'other'")
    assert client.get("/v3").json() == {"error": "GET /v3: not found"}
    assert client.get(INFER).status_code == 405


def test_prometheus_reads_how_often_and_how_long(client: Any) -> None:
    client.post(INFER, json=request())
    client.post(INFER, content="{")
    client.post("/v2/models/of a stranger/infer", content="{")
    text = client.get("/metrics").text
    for line in (
        'nncompile_requests_total{model="net",status="200"} 1.0',
        'nncompile_requests_total{model="net",status="400"} 1.0',
        'nncompile_batch_rows_sum{model="net"} 2.0',
        'nncompile_request_seconds_count{model="net"} 2.0',
        "nncompile_open_requests 0.0",
    ):
        assert line in text.splitlines()
    assert "stranger" not in text


@pytest.mark.parametrize("kind", [f16, bf16, u8, i64, boolean])
def test_other_element_types(tmp_path: Path, kind: Any) -> None:
    @model
    def same(x=kind["n"]):
        return {"y": x[::-1]}

    served = ServedModel("net", Session(export(same, tmp_path / "same.onnx", seed=0)[0]))
    data = [True, False, True] if kind is boolean else [1, 2, 200]
    with testclient.TestClient(application([served], Limits())) as client:
        datatype = client.get("/v2/models/net").json()["inputs"][0]["datatype"]
        sent = {"inputs": [tensor("x", data, datatype)]}
        assert client.post(INFER, json=sent).json()["outputs"][0]["data"] == data[::-1]
        beyond = {"inputs": [tensor("x", [1e39] if kind.is_float else [2**70], datatype)]}
        assert client.post(INFER, json=beyond).status_code == 400
        array = np.array(data, kind.numpy)
        size = {"binary_data_size": array.nbytes}
        header = json.dumps(
            {
                "inputs": [{"name": "x", "shape": [3], "datatype": datatype, "parameters": size}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        answer = client.post(
            INFER, content=header + array.tobytes(), headers={LENGTH: str(len(header))}
        )
        assert answer.content[int(answer.headers[LENGTH]) :] == array[::-1].tobytes()
        if kind is boolean:
            headers = {LENGTH: str(len(header))}
            answer = client.post(INFER, content=header + b"\1\0\2", headers=headers)
            assert "neither 0 nor 1" in answer.json()["error"]


def test_numbers_that_json_has_none_for(tmp_path: Path) -> None:
    @model
    def inverse(x=f32["n"]):
        return {"y": 1 / x}

    served = ServedModel("net", Session(export(inverse, tmp_path / "inverse.onnx", seed=0)[0]))
    with testclient.TestClient(application([served], Limits())) as client:
        answer = client.post(INFER, json={"inputs": [tensor("x", [0.0])]})
    assert '"data": [Infinity]' in answer.text


def apart(made: Model) -> dict[str, str]:
    return rows_apart(made.inference())


def test_a_file_says_whether_its_rows_are_apart(file: Path) -> None:
    """Requests of strangers are computed together only then."""
    assert Session(file).metadata[METADATA_KEY] == "batch"
    assert Session(file).metadata == {METADATA_KEY: "batch"}

    @model
    def over_the_batch(x=f32["batch", 4]):
        return {"y": softmax(x, 0)}

    @model
    def running(x=f32["batch", 4]):
        return {"y": cumsum(x, 0)}

    @model
    def counting(x=f32["batch", 4]):
        return {"y": x / x.shape[0]}

    @model
    def turned(x=f32["batch", 4]):
        return {"y": x.T}

    @model
    def one_more(x=f32["batch", 4], table=f32["rows", 4]):
        return {"y": x @ table.T}

    @model(predict=("y", "most"))
    def of_all(x=f32["batch", 4]):
        return {"y": x * 2, "most": x.max()}

    for other in (over_the_batch, running, counting, turned, one_more, of_all):
        assert apart(other) == {}, other.name


def test_files_of_others_are_joined_where_the_user_says_so(tmp_path: Path) -> None:
    @model
    def one(x=f32["n", 2]):
        return {"y": softmax(x, 0)}

    @model
    def two(x=f32["n", 2], z=f32[3]):
        return {"y": x + z[0]}

    files = {m.name: export(m, tmp_path / f"{m.name}.onnx", seed=0)[0] for m in (one, two)}
    assert ServedModel("one", Session(files["one"])).rows is None
    assert ServedModel("one", Session(files["one"]), rows=True).rows == "n"
    assert ServedModel("two", Session(files["two"]), rows=True).rows is None


@model
def line(a=f32["batch", 4], b=f32["batch"]):
    return {"loss": mse((a >> Dense(1))[:, 0], b)}


class Late(Stop):
    """Asked after the run, before it has said that it is done."""

    def done(self) -> bool:
        self.ask()
        return super().done()


def test_a_step_that_makes_the_state_nan_is_taken_back(tmp_path: Path) -> None:
    export(compile_step(training(line, optimizer=sgd(0.1))), tmp_path / "step.onnx", "step")
    step = opened(tmp_path / "step.onnx", "step")
    good = {"a": X, "b": X[:, 0]}
    before = float(step.run(good, Stop())["loss"])
    for worst in (np.nan, np.inf):
        with pytest.raises(FeedError, match=r"makes dense\.\w+ NaN or infinite"):
            step.run({**good, "b": np.full(2, worst, np.float32)}, Stop())
    assert 0 < float(step.run(good, Stop())["loss"]) < before


@pytest.mark.parametrize("stop", [Stop, Late], ids=["while it runs", "when it has run"])
def test_a_step_that_is_stopped_is_not_made(tmp_path: Path, stop: type[Stop]) -> None:
    """Who was told that it took too long may send the batch again."""
    export(compile_step(training(line, optimizer=sgd(0.1))), tmp_path / "step.onnx", "step")
    step = opened(tmp_path / "step.onnx", "step")
    good = {"a": X, "b": X[:, 0]}
    for _ in range(2):  # the first run of such sizes has a way of its own
        stopped = stop()
        if stop is Stop:
            stopped.ask()
        with pytest.raises(BackendError, match=r"terminate flag|was stopped"):
            step.run(good, stopped)
    first = step.run(good, Stop())
    assert first == opened(tmp_path / "step.onnx", "step").run(good, Stop())
    with pytest.raises(BackendError, match=r"terminate flag|was stopped"):
        step.run(good, stopped)
    assert step.run(good, Stop())["loss"] < first["loss"]
