"""A small HTTP server that answers like the service, except where a test scripts other replies or faults."""

from __future__ import annotations

import dataclasses
import io
import json
import ssl
import sys
import threading
from collections import deque
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from fashion_client._calls import NPY_LOCK
from PIL import Image

from tests.support.signatures import LABELS

MODELS: dict[str, dict[str, Any]] = {
    "fashion_convnet": {"input": ("image", "UINT8", [-1, 28, 28]), "labels": LABELS, "versions": ["1.0", "1.1"]},
    "sigmoid_net": {"input": ("features", "FP32", [-1, 3]), "labels": ("a", "b"), "versions": ["1.0"]},
}
NPY = "application/x-npy"


@dataclasses.dataclass(frozen=True)
class Reply:
    """A scripted answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Drop:
    """Close the connection without an answer."""


class Cut:
    """Announce more bytes than are sent, then close."""


class Stall:
    """Send nothing until the test is over."""


class StallInBody:
    """Send half of the body, and nothing more until the test is over."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """A received request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes


def problem(status: int, title: str, detail: str, **headers: str) -> Reply:
    body = {
        "type": "urn:problem-type:fashion-serve:test",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "urn:uuid:7",
    }
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json", **headers})


def expected(array: np.ndarray, labels: tuple[str, ...] = LABELS) -> np.ndarray:
    """The service's answer for a batch, float32 [N, labels]. An example's mean value decides its likeliest label."""
    likeliest = array.reshape(len(array), -1).astype(np.float64).mean(axis=1).astype(int) % len(labels)
    probabilities = np.full((len(array), len(labels)), 0.25 / (len(labels) - 1), np.float32)
    probabilities[np.arange(len(array)), likeliest] = 0.75
    return probabilities


def png(gray: int) -> bytes:
    """A 28x28 gray PNG of one value."""
    file = io.BytesIO()
    Image.new("L", (28, 28), gray).save(file, "PNG")
    return file.getvalue()


class ScriptedService:
    """The server; ``script`` holds the replies to the next requests in place of the service's answers."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.script: deque[Any] = deque()
        self.api_key: str | None = None
        self.seen: list[Seen] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        # Requests for arrays wait here for each other, so that a test can count the concurrent ones.
        self.meeting: threading.Barrier | None = None
        self.over = threading.Event()
        self.lock = threading.Lock()
        service = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.service = service
                with service.lock:
                    service.connections += 1
                super().setup()

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    @property
    def predictions(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.startswith("/predictions/")]

    @property
    def pieces(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.headers.get("Accept") == NPY]

    def __enter__(self) -> ScriptedService:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.meeting is not None:
            self.meeting.abort()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client breaks its connection at a timeout, or if it does not trust the certificate.
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: ScriptedService

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        service, parts = self.service, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        seen = Seen(self.command, parts.path, parse_qs(parts.query), self.headers, body)
        with service.lock:
            service.seen.append(seen)
            service.in_flight += 1
            service.most_in_flight = max(service.most_in_flight, service.in_flight)
            scripted = service.script.popleft() if service.script else None
        reply = scripted if scripted is not None else _answer(service, seen)
        if service.meeting is not None and seen.headers.get("Accept") == NPY:
            try:
                service.meeting.wait(20)
            except threading.BrokenBarrierError:
                reply = Drop()
        with service.lock:
            service.in_flight -= 1
        self._send(reply)

    def _send(self, reply: Any) -> None:
        if isinstance(reply, Reply):
            self._start(reply.status, {**reply.headers, "Content-Length": str(len(reply.body))}, reply.body)
            return
        self.close_connection = True
        if isinstance(reply, (Cut, StallInBody)):
            self._start(200, {"Content-Type": "application/json", "Content-Length": "100"}, b'{"class": 9, ')
        if isinstance(reply, (Stall, StallInBody)):
            self.service.over.wait(60)

    def _start(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _answer(service: ScriptedService, seen: Seen) -> Reply:
    if service.api_key is not None and seen.headers.get("Authorization") != f"Bearer {service.api_key}":
        return problem(401, "No valid API key", "send Authorization: Bearer <key>")
    steps = [unquote(step) for step in seen.path.strip("/").split("/")]
    if seen.path == "/readyz":
        return _json({"ready": True})
    if seen.path == "/v1/models":
        return _json({"models": list(MODELS)})
    name = steps[2] if steps[0] == "v2" else steps[1] if len(steps) > 1 else ""
    if name not in MODELS or steps[0] not in ("v2", "predictions", "explanations"):
        return problem(404, "Not found", f"there is no model {name!r}")
    model = MODELS[name]
    if steps[0] == "v2":
        return _json(_metadata(name))
    if not seen.body.startswith((b"\x93NUMPY", b"\x89PNG")):
        return problem(422, "The request has a wrong shape, range or value", "not an image")
    array, single = _decode(seen.body, model["input"][2][1:])
    if steps[0] == "explanations":
        if seen.headers.get("Accept") == "image/png":
            return Reply(200, png(1), {"Content-Type": "image/png"})
        prediction = _object(expected(array)[0], LABELS, None, independent=False)
        target = LABELS.index(seen.query["target"][0]) if "target" in seen.query else prediction["class"]
        del prediction["probabilities"]
        return _json({**prediction, "target": target, "attributions": np.eye(28).tolist()})
    probabilities = expected(array, model["labels"])
    if seen.headers.get("Accept") == NPY:
        file = io.BytesIO()
        np.save(file, probabilities)
        return Reply(200, file.getvalue(), {"Content-Type": NPY})
    top_k = int(seen.query["top_k"][0]) if "top_k" in seen.query else None
    objects = [_object(row, model["labels"], top_k, independent=name == "sigmoid_net") for row in probabilities]
    return _json(objects[0] if single else objects)


def _decode(body: bytes, shape: list[int]) -> tuple[np.ndarray, bool]:
    if body.startswith(b"\x89PNG"):
        return np.asarray(Image.open(io.BytesIO(body)))[np.newaxis], True
    with NPY_LOCK:
        array = np.load(io.BytesIO(body), allow_pickle=False)
    return array.reshape(-1, *shape), list(array.shape) == shape


def _object(row: np.ndarray, labels: tuple[str, ...], top_k: int | None, independent: bool) -> dict[str, Any]:
    best = int(row.argmax())
    shown = range(len(row)) if top_k is None else np.argsort(-row, kind="stable")[:top_k]
    probabilities = {labels[index]: float(row[index]) for index in shown}
    if independent:
        likely = [label for label, value in probabilities.items() if value >= 0.5]
        return {"probabilities": probabilities, "labels": likely}
    return {"class": best, "label": labels[best], "probability": float(row[best]), "probabilities": probabilities}


def _metadata(name: str) -> dict[str, Any]:
    tensor, datatype, shape = MODELS[name]["input"]
    return {
        "name": name,
        "versions": MODELS[name]["versions"],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": tensor, "datatype": datatype, "shape": shape}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, len(MODELS[name]["labels"])]}],
    }


def _json(value: Any) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})
