"""TorchServe's own worker process, with the test in place of the frontend."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import ts

from tests.support import packing
from tests.support.worker_messages import Answers, batch, load, request

TS = Path(ts.__file__).parent
# For a frontend that needs each message answered as a whole.
WHOLE = packing.CONFIG.replace("continuousBatching: true\n", "")
ROW = np.array([1.0, -2.0, 0.5], "<f4").tobytes()


class Worker:
    """A worker process with the model of ``tests.support.packing`` loaded, and the frontend's end of its connection."""

    def __init__(self, folder, version=None, config=WHOLE, **variables):
        with zipfile.ZipFile(packing.pack(folder, changes={"model-config.yaml": config})) as archive:
            archive.extractall(folder / "model")
        # A Unix socket's path is limited to about 100 characters. The worker parses a number at its end.
        self._sockets = tempfile.TemporaryDirectory()
        path = Path(self._sockets.name) / "worker.9000"
        # Python runs this module at its start. It pretends that another release of TorchServe is installed.
        (folder / "sitecustomize.py").write_text(f"import ts\nts.__version__ = {version!r}\n" if version else "")
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, (folder / "model", folder))),
            "TS_DECODE_INPUT_REQUEST": "false",
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        command = [sys.executable, str(TS / "model_service_worker.py"), "--sock-type", "unix", "--sock-name", str(path)]
        self.log = folder / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--metrics-config", str(TS / "configs" / "metrics.yaml")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.connection = self._connect(path)
        self.answers = Answers(self.connection.makefile("rb"))
        self.send(load("tiny", str(folder / "model"), 4))
        assert self.answers.read()[:2] == (200, b"loaded model tiny"), self.log.read_text()

    def _connect(self, path):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            connection = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                connection.connect(str(path))
                return connection
            connection.close()
            time.sleep(0.05)
        raise AssertionError(f"the worker did not listen within 60 s: {self.log.read_text()}")

    def send(self, *pieces):
        for piece in pieces:
            self.connection.sendall(piece)

    def stop(self):
        """Close the connection, as a frontend does when it stops, and return the worker's exit status."""
        self.answers.stream.close()
        self.connection.close()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self._sockets.cleanup()


# Settings of a worker, and what it logs with them.
INSTALLED: tuple[dict[str, str], str] = {}, "replaces the reader and writer of TorchServe"
OTHER_VERSION = {"version": "0.12.1"}, "Using TorchServe's own reader: TorchServe is 0.12.1"
SWITCHED_OFF = (
    {"FASHION_WIRE": "torchserve", "config": packing.CONFIG},
    "Using TorchServe's own reader: FASHION_WIRE=torchserve",
)


@pytest.fixture(
    scope="module",
    params=[INSTALLED, OTHER_VERSION, SWITCHED_OFF],
    ids=["this version", "another version", "switched off"],
)
def worker(request, tmp_path_factory):
    settings, logged = request.param
    running = Worker(tmp_path_factory.mktemp("worker"), **settings)
    yield running
    # With either reader, a closed connection is not an error.
    assert running.stop() == 0
    assert logged in running.log.read_text()


OCTETS = "application/octet-stream"


def probabilities(answer):
    return [json.loads(answer["body"])["probabilities"][label] for label in packing.LABELS]


def test_a_batch_is_answered_in_its_order(worker):
    rows = np.linspace(-2, 2, 12, dtype="<f4").reshape(4, 3)
    requests = [
        request(
            f"id-{place}", {"Host": "h", "content-type": OCTETS, "n": str(place)}, [("body", OCTETS, row.tobytes())]
        )
        for place, row in enumerate(rows)
    ]
    message = batch(*requests)
    worker.send(message)
    code, text, answers = worker.answers.read()
    assert (code, text) == (200, b"Prediction success")
    assert [answer["id"] for answer in answers] == [f"id-{place}" for place in range(4)]
    weight = packing.network().weight.detach().numpy()
    scores = np.exp(rows @ weight.T)
    np.testing.assert_allclose(list(map(probabilities, answers)), scores / scores.sum(1, keepdims=True), atol=1e-6)
    # The same message again, in pieces.
    worker.send(message[:1], message[1:50], message[50:-1])
    worker.send(message[-1:])
    assert worker.answers.read() == (code, text, answers)


def test_one_bad_request_leaves_the_others_alone(worker):
    good = request("good", {"content-type": OCTETS}, [("body", OCTETS, ROW)])
    bad = request("bad", {"content-type": "application/json"}, [("body", "application/json", b"{")])
    worker.send(batch(good, bad, good))
    answers = worker.answers.read()[2]
    assert [answer["status"] for answer in answers] == [200, 400, 200]
    assert answers[1]["content-type"] == "application/problem+json"
    assert answers[0] == answers[2]


def test_a_batch_without_requests_has_no_answers(worker):
    worker.send(batch())
    assert worker.answers.read() == (200, b"Prediction success", [])


@pytest.mark.parametrize("worker", [INSTALLED], indirect=True, ids=["this version"])
def test_files_of_the_same_field_are_all_answered(worker):
    rows = [ROW, np.zeros(3, "<f4").tobytes()]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    worker.send(batch(request("a", headers, [("file", OCTETS, row) for row in rows])))
    (answer,) = worker.answers.read()[2]
    assert [one["probabilities"]["left"] for one in json.loads(answer["body"])] == pytest.approx([0.9964064, 0.5])


def test_a_message_is_answered_in_parts_with_continuous_batching(tmp_path):
    rows = np.linspace(-2, 2, 15, dtype="<f4").reshape(5, 3)
    requests = [
        request(name, {"content-type": OCTETS}, [("body", OCTETS, row.tobytes())])
        for name, row in zip("abcde", rows, strict=True)
    ]
    worker = Worker(tmp_path, config=packing.CONFIG)

    def answered():
        code, _, answers = worker.answers.read()
        assert {code, *(answer["status"] for answer in answers)} == {200}
        return [answer["id"] for answer in answers]

    try:
        worker.send(batch(*requests[:4]))
        assert answered() == ["a", "b", "c"]
        # The frontend sends the unanswered request again. The worker polls three times for as many as before.
        worker.send(batch(requests[3]))
        for _ in range(3):
            assert answered() == []
            worker.send(batch(*requests[3:]))
        assert answered() == ["d"]
        worker.send(batch(requests[4]))
        # Before the last answer, the worker polls the frontend's queue once more.
        assert answered() == []
        worker.send(batch(requests[4]))
        assert answered() == ["e"]
    finally:
        assert worker.stop() == 0
