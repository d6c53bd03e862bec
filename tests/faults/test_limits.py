"""A process without free descriptors or memory logs the error, and recovers when it has enough again."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from handlers import limits
from serving.polling import wait_until
from serving.settings import HOST
from tests.support import scenes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")


def _predict(scene, images: int = 1) -> int:
    return requests.post(
        f"{scene.place.gateway}/predictions/{scenes.MODEL}",
        data=np.zeros((images, 784), np.uint8).tobytes(),
        headers={"Content-Type": "application/octet-stream"},
        timeout=30,
    ).status_code


@contextlib.contextmanager
def _limited(process: psutil.Process, resource_number: int, value: int):
    """Lower a resource limit of a process."""
    before = process.rlimit(resource_number)
    process.rlimit(resource_number, (value, before[1]))
    try:
        yield
    finally:
        # The process may have ended.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.rlimit(resource_number, before)


@contextlib.contextmanager
def _connections(port: int, count: int):
    """Open up to ``count`` connections."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect((HOST, port))
        yield


@pytest.mark.parametrize("name", ["gateway", "frontend"])
def test_process_without_descriptors_recovers(shared_scene, name):
    scene = shared_scene
    settings = scene.place.settings
    if name == "gateway":
        limited, port = scene.place.process("gateway").children(), settings.gateway.number
    else:
        limited, port = [scene.frontend()], settings.inference.number
    log = settings.logs / f"{name}.log"
    assert _predict(scene) == 200
    load = scene.load(scene.length(14), "--connections", "8")
    load.settle()
    with contextlib.ExitStack() as stack:
        for process in limited:
            stack.enter_context(_limited(process, resource.RLIMIT_NOFILE, process.num_fds() + 10))
        load.event("no descriptors left")
        with _connections(port, 300):
            assert wait_until(lambda: "Too many open files" in log.read_text(), 30)
            load.settle(2)
        load.event("descriptors again")
    assert wait_until(lambda: _predict(scene) == 200, 30)
    result = load.finish()
    scenes.keep(f"descriptors-{name}", f"No descriptors left for the {name}", result)
    # Open connections continue; a client retries a new one.
    assert set(scenes.failed(result)) <= {"refused", "unconnected", "broken"}
    assert result["series"][-2]["calls"].keys() == {"ok"}
    assert sum(scenes.failed(result).values()) <= 0.01 * sum(result["calls"].values())


def _data(process: psutil.Process) -> int:
    """Bytes that count for RLIMIT_DATA. RLIMIT_AS has no effect on malloc's reserve of 64 MB per thread."""
    match = re.search(r"^VmData:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def test_worker_without_memory_recovers(shared_scene):
    scene = shared_scene
    worker = scene.workers()[0]
    log = scene.place.settings.logs / "workers.log"
    load = scene.load(scene.length(14), "--connections", "8")
    load.settle()
    with _limited(worker, resource.RLIMIT_DATA, _data(worker) + 2**20):
        load.event("no memory left for a worker")
        statuses = set[int]()

        def logged() -> bool:
            # Some of these requests reach that worker, and need more memory than its limit.
            statuses.add(_predict(scene, limits.EXAMPLES))
            return "emory" in log.read_text()

        assert wait_until(logged, 30)
    load.event("memory again")
    assert wait_until(lambda: _predict(scene, limits.EXAMPLES) == 200, scenes.PATIENCE)
    result = load.finish()
    scenes.keep("worker-memory", "No memory left for a worker", result, statuses=sorted(statuses))
    assert statuses <= {200, 500, 503}
    assert "wrong" not in result["calls"]
    assert set(scenes.failed(result)) <= {"status 500", "refused"}
    assert wait_until(lambda: scene.model().ready, scenes.PATIENCE)
    assert all(_predict(scene) == 200 for _ in range(20))
