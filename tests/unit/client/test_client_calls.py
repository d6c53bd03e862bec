"""Single calls of both clients against a real HTTP server."""

from __future__ import annotations

import io
import json
import shutil
import socket
import ssl
import subprocess
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fashion_client import (
    AnswerError,
    AnswerTimeoutError,
    BusyError,
    ConnectError,
    FashionError,
    InputError,
    NotAllowedError,
    NotFoundError,
    Prediction,
    Problem,
    ProblemError,
    RefusedError,
    ServiceError,
    TlsError,
)
from PIL import Image

from tests.support.scripted_service import Cut, Drop, Reply, ScriptedService, Stall, StallInBody, png, problem
from tests.support.signatures import LABELS

BUSY = problem(503, "Busy", "the queue is full")


@pytest.mark.parametrize("form", ["bytes", "str", "path", "pillow", "array", "flat array"])
def test_each_form_of_an_image_gives_the_same_prediction(connect: Any, form: str, tmp_path: Path) -> None:
    pixels = np.full((28, 28), 9, np.uint8)
    (tmp_path / "boot.png").write_bytes(png(9))
    images = {
        "bytes": png(9),
        "str": str(tmp_path / "boot.png"),
        "path": tmp_path / "boot.png",
        "pillow": Image.fromarray(pixels),
        "array": pixels,
        "flat array": pixels.reshape(784),
    }
    prediction = connect().predict(images[form])
    assert isinstance(prediction, Prediction)
    assert (prediction.class_index, prediction.label) == (9, "Ankle boot")
    assert prediction.probability == pytest.approx(0.75)
    assert tuple(prediction.probabilities) == LABELS


def test_a_request_has_the_specified_path_query_and_headers(connect: Any, service: ScriptedService) -> None:
    connect(api_key="k3y").predict(png(3), model="fashion_convnet", version="1.1", top_k=3)
    (seen,) = service.seen
    assert (seen.method, seen.path, seen.query) == ("POST", "/predictions/fashion_convnet/1.1", {"top_k": ["3"]})
    assert seen.headers["Accept"] == "application/json"
    assert seen.headers["Authorization"] == "Bearer k3y"
    assert "Content-Type" not in seen.headers
    assert seen.body == png(3)


def test_top_k_returns_the_likeliest_first(connect: Any) -> None:
    prediction = connect().predict(png(4), top_k=2)
    assert list(prediction.probabilities) == ["Coat", "T-shirt/top"]


def test_independent_labels_have_no_class(connect: Any) -> None:
    prediction = connect().predict(np.ones(3, np.float32), model="sigmoid_net")
    assert prediction.class_index is None
    assert (prediction.label, prediction.probability) == ("b", pytest.approx(0.75))


def test_model_names_are_quoted(connect: Any, service: ScriptedService) -> None:
    with pytest.raises(NotFoundError, match="no model 'a/b'"):
        connect().predict(png(0), model="a/b")
    assert service.seen[0].path == "/predictions/a%2Fb"


def test_settings_are_read_from_the_environment(
    connect: Any, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.api_key = "from-environment"
    monkeypatch.setenv("FASHION_API_KEY", "from-environment")
    assert connect().predict(png(1)).label == "Trouser"


def test_a_netrc_entry_does_not_replace_the_key(
    connect: Any, service: ScriptedService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    service.api_key = "k3y"
    assert connect(api_key="k3y").predict(png(1)).label == "Trouser"


def test_explanations(connect: Any, service: ScriptedService) -> None:
    client = connect()
    explanation = client.explain(png(9), target="Bag")
    assert (explanation.target, explanation.class_index, explanation.label) == (8, 9, "Ankle boot")
    assert explanation.attributions.dtype == np.float32
    np.testing.assert_array_equal(explanation.attributions, np.eye(28))
    assert Image.open(io.BytesIO(client.heat_map(png(9)))).format == "PNG"
    assert [(seen.path, seen.query, seen.headers["Accept"]) for seen in service.seen] == [
        ("/explanations/fashion_convnet", {"target": ["Bag"]}, "application/json"),
        ("/explanations/fashion_convnet", {}, "image/png"),
    ]


def test_models(connect: Any) -> None:
    client = connect()
    assert client.models() == ("fashion_convnet", "sigmoid_net")
    model = client.model("fashion_convnet")
    assert (model.name, model.versions) == ("fashion_convnet", ("1.0", "1.1"))
    assert (model.inputs[0].name, model.inputs[0].datatype, model.inputs[0].shape) == ("image", "UINT8", (-1, 28, 28))
    assert model.outputs[0].shape == (-1, 10)


def test_ready_is_a_single_request(connect: Any, service: ScriptedService) -> None:
    client = connect()
    assert client.ready()
    service.script += [BUSY, Drop()]
    assert not client.ready()
    assert not client.ready()
    assert len(service.seen) == 3
    service.script += [Reply(404)]
    with pytest.raises(NotFoundError):
        client.ready()


def test_many_calls_use_one_connection(connect: Any, service: ScriptedService) -> None:
    client = connect()
    for gray in range(20):
        client.predict(png(gray))
    client.models()
    assert service.connections == 1


@pytest.mark.usefixtures("quick_backoff")
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Drop(), id="dropped connection"),
        pytest.param(Cut(), id="answer cut short"),
        pytest.param(BUSY, id="503"),
        pytest.param(problem(429, "Too many", "slow down"), id="429"),
        pytest.param(Reply(503, b"<html>busy</html>", {"Content-Type": "text/html"}), id="503 of a proxy"),
        pytest.param(problem(503, "Busy", "…", **{"Retry-After": "0"}), id="503 with seconds"),
        pytest.param(problem(429, "Busy", "…", **{"Retry-After": formatdate(0, usegmt=True)}), id="429 with a date"),
        pytest.param(problem(503, "Busy", "…", **{"Retry-After": "soon"}), id="503 with nonsense"),
    ],
)
def test_temporary_failures_are_retried(connect: Any, service: ScriptedService, failure: Any) -> None:
    service.script += [failure, failure]
    assert connect(retries=2).predict(png(2)).label == "Pullover"
    assert len(service.seen) == 3
    assert len({seen.body for seen in service.seen}) == 1


@pytest.mark.usefixtures("quick_backoff")
@pytest.mark.parametrize(("failure", "error"), [(Drop(), ConnectError), (BUSY, BusyError)], ids=["drop", "503"])
def test_retries_are_limited(connect: Any, service: ScriptedService, failure: Any, error: type[FashionError]) -> None:
    service.script += [failure] * 10
    with pytest.raises(error) as caught:
        connect(retries=2).predict(png(2))
    assert caught.value.retry
    assert len(service.seen) == 3


@pytest.mark.usefixtures("quick_backoff")
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RefusedError),
        (401, NotAllowedError),
        (403, NotAllowedError),
        (404, NotFoundError),
        (408, RefusedError),
        (413, RefusedError),
        (422, RefusedError),
        (500, ServiceError),
        (502, ServiceError),
        (507, ServiceError),
    ],
)
def test_permanent_failures_are_not_retried(
    connect: Any, service: ScriptedService, status: int, error: type[FashionError]
) -> None:
    service.script += [problem(status, "A title", "Some\ndetail", **{"Retry-After": "0"})]
    with pytest.raises(error) as caught:
        connect().predict(png(2))
    assert type(caught.value) is error
    assert not caught.value.retry
    assert str(caught.value) == f"A title: Some detail (HTTP {status})"
    assert isinstance(caught.value, ProblemError)
    assert caught.value.problem == Problem(
        status, "A title", "Some\ndetail", "urn:problem-type:fashion-serve:test", "urn:uuid:7"
    )
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(404, b'{"code": 404, "message": "Model not found: x"}'), "Not Found: Model not found: x (HTTP 404)"),
        (Reply(502, b"<html>Bad Gateway</html>"), "Bad Gateway (HTTP 502)"),
        (Reply(500, b'{"title": 7, "detail": ["x"]}'), "Internal Server Error (HTTP 500)"),
        (Reply(599), "Unknown status (HTTP 599)"),
    ],
    ids=["TorchServe", "proxy", "odd members", "odd status"],
)
def test_an_error_without_a_problem_body_still_has_a_message(
    connect: Any, service: ScriptedService, reply: Reply, text: str
) -> None:
    service.script += [reply]
    with pytest.raises(FashionError) as caught:
        connect().predict(png(2))
    assert str(caught.value) == text


@pytest.mark.parametrize("stall", [Stall(), StallInBody()], ids=["no answer", "half an answer"])
def test_a_timeout_is_not_retried(connect: Any, service: ScriptedService, stall: Any) -> None:
    service.script += [stall]
    with pytest.raises(AnswerTimeoutError, match=r"within 0\.3 s") as caught:
        connect(timeout=0.3).predict(png(2))
    assert not caught.value.retry
    assert len(service.seen) == 1


def test_a_request_that_the_server_does_not_read_times_out(connect: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        # More than the socket buffers of both ends hold.
        with pytest.raises(AnswerTimeoutError):
            client.predict(bytes(50_000_000))


@pytest.mark.usefixtures("quick_backoff")
def test_a_closed_port_is_a_connect_error(connect: Any, free_port: int) -> None:
    client = connect(f"http://127.0.0.1:{free_port}", retries=1)
    with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{free_port}.*(refused|failed).*is the service running"):
        client.predict(png(2))
    assert not client.ready()


def test_tls_to_a_plain_server_is_a_tls_error(connect: Any, service: ScriptedService) -> None:
    with pytest.raises(TlsError, match=r"no secure connection.*(REQUESTS_CA_BUNDLE|SSL_CERT_FILE)"):
        connect(service.url.replace("http:", "https:")).predict(png(2))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_with_a_private_authority(connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with ScriptedService(tls) as service:
        with pytest.raises(TlsError, match=r"certificate verify failed.*(REQUESTS_CA_BUNDLE|SSL_CERT_FILE)") as caught:
            connect(service.url).predict(png(2))
        assert not caught.value.retry
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert connect(service.url).predict(png(2)).label == "Pullover"


def test_a_proxy_of_the_environment_is_used(
    connect: Any, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", service.url)
    assert connect("http://behind.invalid").predict(png(2)).label == "Pullover"
    assert service.seen[0].headers["Host"] == "behind.invalid"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>hello</html>"),
        Reply(200, b'"text"'),
        Reply(200, b'{"label": "Bag"}'),
        Reply(200, b'{"class": 1, "label": "Bag", "probabilities": {"Coat": 1}}'),
        Reply(302, b"", {"Location": "https://elsewhere/"}),
    ],
    ids=["HTML", "a JSON string", "no probabilities", "label without probability", "redirection"],
)
def test_an_answer_of_another_program_is_an_answer_error(connect: Any, service: ScriptedService, reply: Reply) -> None:
    service.script += [reply]
    with pytest.raises(AnswerError, match=r"127\.0\.0\.1") as caught:
        connect().predict(png(2))
    assert not caught.value.retry
    assert len(service.seen) == 1


def test_an_explanation_of_independent_labels_has_no_class(connect: Any, service: ScriptedService) -> None:
    service.script += [Reply(200, b'{"target": 1, "attributions": [0.5, -0.5, 0.0]}')]
    explanation = connect().explain(np.ones(3, np.float32), model="sigmoid_net")
    assert (explanation.target, explanation.class_index, explanation.label) == (1, None, None)
    assert explanation.attributions.tolist() == [0.5, -0.5, 0.0]


def test_a_model_that_returns_numbers_has_no_predictions(connect: Any, service: ScriptedService) -> None:
    service.script += [Reply(200, b'{"values": [0.25, -1.5]}')]
    with pytest.raises(InputError, match="returns numbers, and predictions are those of models that classify"):
        connect().predict(png(1), model="prices")


def test_an_invalid_explanation_is_an_answer_error(connect: Any, service: ScriptedService) -> None:
    service.script += [Reply(200, b'{"target": 1, "attributions": "many"}')]
    with pytest.raises(AnswerError, match="is not an explanation"):
        connect().explain(png(1))


@pytest.mark.parametrize("body", [{"models": None}, {"models": [1]}, {}, []], ids=str)
def test_an_invalid_list_of_models_is_an_answer_error(connect: Any, service: ScriptedService, body: Any) -> None:
    service.script += [Reply(200, json.dumps(body).encode())]
    with pytest.raises(AnswerError):
        connect().models()


@pytest.mark.parametrize(
    "change", [{"inputs": []}, {"inputs": [{"name": "x"}]}, {"outputs": None}, {"name": None, "inputs": 3}], ids=str
)
def test_invalid_metadata_is_an_answer_error(connect: Any, service: ScriptedService, change: Any) -> None:
    whole = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}
    service.script += [Reply(200, json.dumps({**whole, **change}).encode())]
    with pytest.raises(AnswerError, match="is not a model's metadata"):
        connect().model("m")


def test_an_invalid_heat_map_is_an_answer_error(connect: Any, service: ScriptedService) -> None:
    service.script += [Reply(200, b"{}")]
    with pytest.raises(AnswerError, match="is not a PNG picture"):
        connect().heat_map(png(2))


def test_bytes_with_several_examples_are_an_input_error(connect: Any) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((3, 28, 28), np.uint8))
    with pytest.raises(InputError, match="must hold one example, got 3"):
        connect().predict(file.getvalue())


def test_bytes_with_a_batch_of_one_are_one_example(connect: Any) -> None:
    file = io.BytesIO()
    np.save(file, np.full((1, 28, 28), 9, np.uint8))
    assert connect().predict(file.getvalue()).label == "Ankle boot"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("nowhere.png", "nowhere.png: No such file or directory"),
        ("nul\0byte", "null"),
        (7, "got int"),
        (np.zeros((28, 28), complex), "integers or floats, got complex128"),
        (np.zeros((27, 28)), r"\[28, 28\] or \[N, 28, 28\], got \[27, 28\]"),
        (Image.new("F", (28, 28)), "convert it to RGB"),
    ],
    ids=["missing file", "invalid path", "not an image", "not numbers", "wrong shape", "no PNG mode"],
)
def test_an_invalid_image_is_not_sent(connect: Any, service: ScriptedService, image: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        connect().predict(image)
    assert not service.predictions


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 0}, "top_k must be from 1"),
        ({"model": ""}, "must not be empty or dots alone, got ''"),
        ({"model": ".."}, r"must not be empty or dots alone, got '\.\.'"),
        ({"version": "."}, r"the name of a model or version must not be empty or dots alone, got '\.'"),
    ],
    ids=str,
)
def test_options_are_checked_before_sending(
    connect: Any, service: ScriptedService, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        connect().predict(png(2), **options)
    assert not service.seen


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "localhost:8000"}, "url must be an address such as http://127.0.0.1:8000, got 'localhost:8000'"),
        ({"url": "ftp://host"}, "url must be"),
        ({"url": "http://host:port"}, "url must be"),
        ({"url": "http://host?x=1"}, "url must be"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"timeout": float("nan")}, "timeout must be above 0"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"in_flight": 0}, "in_flight must be 1 or more"),
    ],
    ids=str,
)
def test_settings_are_checked_when_the_client_is_created(connect: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        connect(**options)


def test_an_invalid_key_is_refused_without_quoting_it(connect: Any) -> None:
    with pytest.raises(InputError, match="FASHION_API_KEY") as caught:
        connect(api_key="secret\nX-Other: 1")
    assert "secret" not in str(caught.value)


def test_a_wrong_address_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion_client import FashionClient

    monkeypatch.setenv("FASHION_URL", "nonsense")
    with pytest.raises(InputError, match="FASHION_URL must be"):
        FashionClient()


def test_the_address_may_have_a_path(connect: Any, service: ScriptedService) -> None:
    with pytest.raises(NotFoundError):
        connect(service.url + "/fashion/").models()
    assert service.seen[0].path == "/fashion/v1/models"
