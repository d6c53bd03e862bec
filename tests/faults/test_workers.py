"""Killed and hung workers: the others continue, and callers notice at most a delay."""

from __future__ import annotations

import signal
import time

from tests.support import scenes

# From the kill of a worker until its successor is ready: 1 s of TorchServe's back-off, and the import of torch.
RESTART_LIMIT_S = 3.0


def test_killed_workers_lose_no_request(shared_scene):
    scene = shared_scene
    load = scene.load(scene.length(66))
    load.settle()
    restarts = []
    kills = 12 if scenes.FULL else 1
    for number in range(kills):
        victim = scene.workers()[number % 2]
        killed = load.event("kill -9 of a worker")
        victim.kill()
        scene.await_replaced(victim)
        restarts.append(time.time() - killed)
        if number < kills - 1:
            # The next kill is five seconds after the last.
            time.sleep(max(0.0, killed + 5 - time.time()))
    result = load.finish()
    scenes.keep(
        "worker-killed",
        "kill -9 of one of two workers every 5 s",
        result,
        back_seconds=[round(seconds, 2) for seconds in restarts],
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert result["calls"]["ok"] >= scenes.REQUESTS
        assert max(restarts) <= RESTART_LIMIT_S


def test_hung_worker_is_replaced_and_the_other_continues(shared_scene):
    scene = shared_scene
    timeout = scene.response_timeout
    load = scene.load(scene.length(30))
    load.settle()
    victim = scene.workers()[0]
    hung = load.event("SIGSTOP of a worker")
    victim.send_signal(signal.SIGSTOP)
    scene.await_replaced(victim)
    took = time.time() - hung
    load.event("replaced")
    result = load.finish()
    scenes.keep("worker-hung", "One of two workers hangs", result, replaced_seconds=round(took, 2), timeout=timeout)
    assert scenes.failed(result) == {}
    # The hung worker's requests are answered late, all others at once.
    start = int((hung - result["started"]) / result["interval"]) + 1
    meanwhile = result["series"][start : start + int(timeout / result["interval"])]
    assert sum(entry["calls"].get("ok", 0) for entry in meanwhile) > 0.5 * scene.rate * timeout
    if scenes.FULL:
        assert took <= timeout + RESTART_LIMIT_S
