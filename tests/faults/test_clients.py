"""Slow, idle, pipelining, and disconnecting clients do not affect the others."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil

from serving.polling import wait_until
from serving.settings import ROOT
from tests.support import scenes
from tests.support.gateways import Gateway
from tests.support.scenes import Scene

CROWD = 5000 if scenes.FULL else 400
# With the crowd, the other clients must keep this share of the throughput.
MIN_THROUGHPUT_SHARE = 0.9


@contextlib.contextmanager
def _crowd(port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.support.slow_clients", "--port", str(port), "--count", str(CROWD)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        output = process.stdout.readline()
        assert output == "open\n", output + process.stdout.read()
        yield
    finally:
        process.terminate()
        process.communicate()


def _gateway_workers(scene: Scene) -> list[psutil.Process]:
    workers: list[psutil.Process] = scene.place.process("gateway").children()
    return workers


def _usage(scene: Scene) -> dict[str, int]:
    workers = _gateway_workers(scene)
    return {
        "gateway_descriptors": sum(each.num_fds() for each in workers),
        "gateway_mb": sum(each.memory_info().rss for each in workers) // 2**20,
        "frontend_descriptors": scene.frontend().num_fds(),
        "frontend_mb": scene.frontend().memory_info().rss // 2**20,
    }


def test_slow_clients_do_not_slow_the_others(shared_scene):
    scene = shared_scene
    # Measure the capacity alternately without and with the crowd, so that other load on the machine affects both.
    rounds = 4 if scenes.FULL else 1
    without_crowd, with_crowd = [], []
    idle = _usage(scene)
    maxima = []
    for _ in range(rounds):
        without_crowd.append(scenes.capacity(scene.place.gateway, scene.archives, scene.folder))
        with _crowd(scene.place.settings.gateway.number):
            # The gateway closes the first of them after ten seconds.
            first = _usage(scene)
            with_crowd.append(scenes.capacity(scene.place.gateway, scene.archives, scene.folder))
            last = _usage(scene)
            maxima.append({name: max(first[name], last[name]) for name in first})
    assert all(each["gateway_descriptors"] > CROWD * 0.9 for each in maxima), maxima

    def returned() -> bool:
        now = _usage(scene)
        # nginx keeps up to 256 idle connections to TorchServe.
        return now["gateway_descriptors"] < idle["gateway_descriptors"] + 300

    assert wait_until(returned, scenes.PATIENCE)
    # A load at a fixed rate, for the chart and the latency.
    load = scene.load(scene.length(16))
    with _crowd(scene.place.settings.gateway.number):
        load.event(f"{CROWD} slow clients")
        result = load.finish()
    assert wait_until(returned, scenes.PATIENCE)
    scenes.keep(
        "slow-clients",
        f"{CROWD} clients that are slow, idle, or disconnect",
        result,
        alone=[round(each) for each in without_crowd],
        among=[round(each) for each in with_crowd],
        idle=idle,
        most=maxima,
        after=_usage(scene),
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert max(with_crowd) >= MIN_THROUGHPUT_SHARE * max(without_crowd)
        # nginx does not free the memory of one crowd, but reuses it for the next.
        for name in ("gateway_mb", "frontend_mb"):
            assert _usage(scene)[name] <= 1.1 * maxima[0][name]


def test_pipelined_requests_are_answered_in_order(shared_scene):
    scene = shared_scene
    bodies = [np.full((count, 784), 10 * count, np.uint8).tobytes() for count in (3, 1, 2)]
    head = f"POST /predictions/{scenes.MODEL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    sent = b"".join(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies)
    received = Gateway(scene.place.settings).converse(sent, answers=3)
    # The status line may have any reason phrase.
    answers = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 ")[1:]]
    predictions = [json.loads(answer) for answer in answers]
    assert [len(each) if isinstance(each, list) else 1 for each in predictions] == [3, 1, 2]
