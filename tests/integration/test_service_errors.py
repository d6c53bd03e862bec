"""What a start says and leaves behind when it cannot succeed."""

from __future__ import annotations

import json
import os
import socket

import numpy as np
import pytest

from serving.settings import HOST
from serving.supervisor import state
from tests.support import packing

ENDS_AT_ONCE = b"""
import os

print("about to give up", flush=True)
os._exit(3)
"""


def _refused(place, **environment: str) -> str:
    """The one-line message of a start that must fail before it starts anything."""
    started = place.run("start", **environment)
    assert started.returncode == 1, started.stdout
    assert started.stderr.startswith("error: ")
    assert started.stderr.count("\n") == 1, started.stderr
    assert "Traceback" not in started.stderr
    place.assert_no_process()
    assert not (place.settings.run / "service.json").exists()
    return started.stderr


def _failed(place, **environment: str) -> str:
    """The message of a start that must fail on the way, leaving nothing."""
    started = place.run("start", **environment)
    assert started.returncode == 1, started.stdout
    assert started.stderr.startswith("error: ")
    place.assert_no_process()
    assert not (place.settings.run / "service.json").exists()
    return started.stderr


def test_no_archive_says_how_to_make_one(place):
    said = _refused(place)
    assert str(place.settings.model_store) in said
    assert "make archive" in said


@pytest.mark.parametrize("damage", ["empty", "text", "cut short", "one byte changed"])
def test_damaged_archive_is_named(place, damage):
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
    said = _refused(place)
    assert str(path) in said
    assert "make archive" in said


def test_port_in_use_is_named_with_its_holder(place):
    packing.pack(place.settings.model_store)
    with socket.socket() as holder:
        holder.bind((HOST, place.settings.management.number))
        holder.listen()
        said = _refused(place)
    assert f"port {place.settings.management.number} (management)" in said
    assert f"(pid {os.getpid()})" in said
    assert "FASHION_MANAGEMENT_PORT" in said


def test_wrong_setting_is_named_with_its_value(place):
    assert "FASHION_METRICS_PORT='80a82'" in _refused(place, FASHION_METRICS_PORT="80a82")


def test_start_while_another_one_is_under_way(place):
    packing.pack(place.settings.model_store)
    place.settings.run.mkdir()
    with state.lock(place.settings):
        said = _refused(place)
    assert "the service runs already" in said
    assert "or is about to" in said


def test_start_that_takes_too_long_is_given_up(place):
    packing.pack(place.settings.model_store)
    assert "was not ready after 0.1 s" in _failed(place, FASHION_START_TIMEOUT="0.1")


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        pytest.param({"model.pt": b"no network"}, "RuntimeError", id="raises"),
        pytest.param({"handlers/classifier.py": ENDS_AT_ONCE}, "about to give up", id="exits"),
    ],
)
def test_worker_that_dies_while_loading_shows_what_it_printed(place, changes, printed):
    packing.pack(place.settings.model_store, "healthy")
    packing.pack(place.settings.model_store, "ailing", changes=changes)
    said = _failed(place)
    assert "a worker of ailing 1.0 ended while it loaded the model" in said
    assert printed in said
    log = place.settings.logs / "workers.log"
    assert str(log) in said
    assert printed in log.read_text()


def test_wrong_prediction_is_not_ready(place):
    wrong = packing.npz(
        inputs=np.ones((1, packing.FEATURES), "float32"),
        probabilities=np.array([[0.0, 1.0]], "float32"),
    )
    packing.pack(place.settings.model_store, changes={"golden.npz": wrong})
    assert "golden check of tiny 1.0 failed: the probabilities differ" in _failed(place)


def test_archive_that_frontend_refuses_is_named(place):
    manifest = packing.manifest("tiny", "1.0")
    manifest["runtime"] = "cobol"
    path = packing.pack(place.settings.model_store, changes={"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()})
    said = _failed(place)
    assert f"TorchServe refused {path}" in said
    assert "Runtime is not defined or invalid" in said
