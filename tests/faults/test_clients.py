"""Clients that dawdle, send nothing, send several requests at once, or vanish: the others do not notice."""

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
# The part of the throughput that others must keep.
KEPT = 0.9


@contextlib.contextmanager
def _crowd(port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.support.slow_clients", "--port", str(port), "--count", str(CROWD)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said == "open\n", said + process.stdout.read()
        yield
    finally:
        process.terminate()
        process.communicate()


def _gateway_workers(scene: Scene) -> list[psutil.Process]:
    return scene.place.process("gateway").children()


def _usage(scene: Scene) -> dict[str, int]:
    workers = _gateway_workers(scene)
    return {
        "gateway_descriptors": sum(each.num_fds() for each in workers),
        "gateway_mb": sum(each.memory_info().rss for each in workers) // 2**20,
        "frontend_descriptors": scene.frontend().num_fds(),
        "frontend_mb": scene.frontend().memory_info().rss // 2**20,
    }


def test_slow_clients_leave_the_others_alone(shared_scene):
    scene = shared_scene
    # As many as can be answered, in turn without and with the crowd, so that both see the same machine.
    rounds = 4 if scenes.FULL else 1
    alone, among = [], []
    idle = _usage(scene)
    most = []
    for _ in range(rounds):
        alone.append(scenes.capacity(scene.place.gateway, scene.archives, scene.folder))
        with _crowd(scene.place.settings.gateway.number):
            # Before the gateway gives the first of them up, after ten seconds.
            first = _usage(scene)
            among.append(scenes.capacity(scene.place.gateway, scene.archives, scene.folder))
            last = _usage(scene)
            most.append({name: max(first[name], last[name]) for name in first})
    assert all(each["gateway_descriptors"] > CROWD * 0.9 for each in most), most

    def returned() -> bool:
        now = _usage(scene)
        # nginx keeps up to 256 connections to TorchServe open, and their memory.
        return now["gateway_descriptors"] < idle["gateway_descriptors"] + 300

    assert wait_until(returned, scenes.PATIENCE)
    # A load with fixed times for the chart, and for the calls' outcomes and latency.
    load = scene.load(scene.long_enough(short=5, full=16))
    with _crowd(scene.place.settings.gateway.number):
        load.event(f"{CROWD} slow clients")
        result = load.result()
    assert wait_until(returned, scenes.PATIENCE)
    scenes.keep(
        "slow-clients",
        f"{CROWD} clients that dawdle, send nothing, or vanish",
        result,
        alone=[round(each) for each in alone],
        among=[round(each) for each in among],
        idle=idle,
        most=most,
        after=_usage(scene),
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert max(among) >= KEPT * max(alone)
        # nginx keeps the memory of one crowd for the next.
        for name in ("gateway_mb", "frontend_mb"):
            assert _usage(scene)[name] <= 1.1 * most[0][name]


def test_pipelined_requests_are_answered_in_order(shared_scene):
    scene = shared_scene
    bodies = [np.full((count, 784), 10 * count, np.uint8).tobytes() for count in (3, 1, 2)]
    head = f"POST /predictions/{scenes.MODEL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    sent = b"".join(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies)
    received = Gateway(scene.place.settings).converse(sent, answers=3)
    # The words after the status are TorchServe's.
    answers = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 ")[1:]]
    found = [json.loads(answer) for answer in answers]
    assert [len(each) if isinstance(each, list) else 1 for each in found] == [3, 1, 2]
