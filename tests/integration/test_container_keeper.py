"""TorchServe as a container runs it, without the container: ready, drained, ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from handlers import limits
from serving.containers import health
from serving.processes import wait_until
from serving.settings import ROOT
from tests import packing

TIMEOUT = 60


@pytest.fixture
def begin(place):
    """Begins a keeper in ``place`` and returns its process and the file that says whether it is ready."""
    begun = []

    def begin(**environment: str) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.containers.torchserve"],
            cwd=ROOT,
            env={**place.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process, place.settings.run / "ready"

    yield begin
    for process in begun:
        process.kill()
    # What it leaves behind holds the other end of its output.
    for left in place.processes():
        left.kill()
    for process in begun:
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, said


def test_it_is_ready_drains_and_ends(place, begin):
    packing.pack(place.settings.model_store)
    process, ready = begin()
    assert wait_until(ready.exists, TIMEOUT)
    assert (place.settings.run / "live.json").exists()
    first = ready.stat().st_mtime
    assert wait_until(lambda: ready.stat().st_mtime > first, TIMEOUT)

    # Ten requests that take the worker about a second altogether, most of them in the queue when the signal comes.
    body = np.zeros((limits.EXAMPLES, packing.FEATURES), np.float32).tolist()
    with ThreadPoolExecutor(10) as pool:
        url = f"{place.inference}/predictions/tiny"
        sent = [pool.submit(requests.post, url, json=body, timeout=TIMEOUT) for _ in range(10)]
        described = f"{place.management}/models/tiny"

        def queued() -> bool:
            return requests.get(described, timeout=TIMEOUT).json()[0]["jobQueueStatus"]["pendingRequests"] > 0

        assert wait_until(lambda: queued() or all(each.done() for each in sent), TIMEOUT)
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: not ready.exists(), 10)
        answers = [each.result() for each in sent]
    assert [(answer.status_code, len(answer.json())) for answer in answers] == [(200, limits.EXAMPLES)] * 10
    code, said = end(process)
    assert code == 0, said
    assert "nothing left to answer" in said
    assert place.processes() == []


def test_it_ends_with_its_frontend(place, begin):
    packing.pack(place.settings.model_store)
    process, ready = begin()
    assert wait_until(ready.exists, TIMEOUT)
    (frontend,) = [child for child in psutil.Process(process.pid).children() if child.name() == "java"]
    frontend.kill()
    code, said = end(process)
    assert (code, ready.exists()) == (1, False)
    assert "TorchServe's frontend ended by itself, with -9" in said
    assert "Traceback" not in said


def test_it_outlives_a_worker(place, begin):
    packing.pack(place.settings.model_store)
    process, ready = begin()
    assert wait_until(ready.exists, TIMEOUT)
    (worker,) = place.workers()
    worker.kill()
    # TorchServe starts another one.
    assert wait_until(lambda: place.workers() not in ([], [worker]), TIMEOUT)
    assert wait_until(ready.exists, TIMEOUT)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 0


def test_workers_that_never_start_end_it(place, begin):
    packing.pack(place.settings.model_store, changes={"vector_classifier.py": b"raise RuntimeError('not today')\n"})
    code, said = end(begin()[0])
    assert code == 1
    assert "ended while it loaded the model" in said
    assert place.processes() == []


def test_a_gpu_that_must_be_there_and_is_not_ends_it(place, begin):
    packing.pack(place.settings.model_store)
    # No GPU is visible to TorchServe, whatever this machine has: it asks nvidia-smi, which is not on this PATH.
    process, _ = begin(FASHION_DEVICE_TYPE="gpu", PATH=str(Path(sys.executable).parent))
    code, said = end(process)
    assert code == 1
    assert "TorchServe finds no GPU here" in said


def test_health_over_http(tiny_service):
    assert health.main([f"{tiny_service.inference}/ping"]) == 0
    assert health.main([f"{tiny_service.inference}/predictions/nosuch"]) == 1
    tiny_service_grpc = f"grpc://{tiny_service.grpc}"
    assert wait_until(lambda: health.main([tiny_service_grpc]) == 0, TIMEOUT)


def test_health_where_nothing_listens(place):
    assert health.main([f"{place.inference}/ping"]) == 1
    assert health.main([f"grpc://{place.grpc}"]) == 1
