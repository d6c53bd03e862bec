"""A failed start reports the reason and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket

import numpy as np
import pytest

from serving.settings import HOST
from serving.supervisor import state
from tests.support import packing
from tests.support.place import Place

ENDS_AT_ONCE = b"""
import os

print("about to give up", flush=True)
os._exit(3)
"""


def _refused(place: Place, **environment: str) -> str:
    """The one-line message of a start that must fail before it starts a process."""
    started = place.run("start", **environment)
    assert started.returncode == 1, started.stdout
    assert started.stderr.startswith("error: ")
    assert started.stderr.count("\n") == 1, started.stderr
    assert "Traceback" not in started.stderr
    place.assert_no_process()
    assert not (place.settings.run / "service.json").exists()
    return started.stderr


def _failed(place: Place, **environment: str) -> str:
    """The message of a start that must fail and leave nothing."""
    started = place.run("start", **environment)
    assert started.returncode == 1, started.stdout
    assert started.stderr.startswith("error: ")
    place.assert_no_process()
    assert not (place.settings.run / "service.json").exists()
    return started.stderr


def test_error_without_archives_names_the_command_that_makes_them(place):
    message = _refused(place)
    assert str(place.settings.model_store) in message
    assert "make archive" in message


@pytest.mark.parametrize("damage", ["empty", "text", "cut short", "one byte changed"])
def test_error_names_the_damaged_archive(place, damage):
    packing.pack(place.settings.model_store, "whole")
    path = packing.pack(place.settings.model_store, "broken")
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "text":
        content[:] = b"not an archive"
    elif damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[content.index(packing.script()) + 1000] ^= 1
    path.write_bytes(content)
    message = _refused(place)
    assert str(path) in message
    assert "make archive" in message


def test_error_names_the_used_port_and_its_process(place):
    packing.pack(place.settings.model_store)
    with socket.socket() as holder:
        holder.bind((HOST, place.settings.management.number))
        holder.listen()
        message = _refused(place)
    assert f"port {place.settings.management.number} (management)" in message
    assert f"(pid {os.getpid()})" in message
    assert "FASHION_MANAGEMENT_PORT" in message


def test_error_names_the_invalid_setting_and_its_value(place):
    expected = "FASHION_METRICS_PORT must be a port number from 1 to 65535, got '80a82'"
    assert expected in _refused(place, FASHION_METRICS_PORT="80a82")


def test_start_is_refused_during_another_start(place):
    packing.pack(place.settings.model_store)
    place.settings.run.mkdir()
    with state.lock(place.settings):
        message = _refused(place)
    assert "is already running, or is starting" in message


def test_start_has_a_timeout(place):
    packing.pack(place.settings.model_store)
    assert "was not ready after 0.1 s" in _failed(place, FASHION_START_TIMEOUT="0.1")


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        pytest.param({"model.pt": b"no network"}, "RuntimeError", id="raises"),
        pytest.param({"handlers/classifier.py": ENDS_AT_ONCE}, "about to give up", id="exits"),
    ],
)
def test_error_has_the_output_of_a_worker_that_ended_while_loading(place, changes, printed):
    packing.pack(place.settings.model_store, "healthy")
    packing.pack(place.settings.model_store, "ailing", changes=changes)
    message = _failed(place)
    assert "a worker of ailing 1.0 ended while it loaded the model" in message
    assert printed in message
    log = place.settings.logs / "workers.log"
    assert str(log) in message
    assert printed in log.read_text()


def test_start_fails_with_a_wrong_golden_prediction(place):
    wrong = packing.npz(
        inputs=np.ones((1, packing.FEATURES), "float32"),
        probabilities=np.array([[0.0, 1.0]], "float32"),
    )
    packing.pack(place.settings.model_store, changes={"golden.npz": wrong})
    assert "golden check of tiny 1.0 failed: the probabilities differ" in _failed(place)


def test_error_names_the_archive_that_the_frontend_refuses(place):
    manifest = packing.manifest("tiny", "1.0")
    manifest["runtime"] = "cobol"
    path = packing.pack(place.settings.model_store, changes={"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()})
    message = _failed(place)
    assert f"TorchServe refused {path}" in message
    assert "Runtime is not defined or invalid" in message
