"""Workers that are killed or hang: the others go on, and no caller notices more than a delay."""

from __future__ import annotations

import signal
import time

from serving.polling import wait_until
from tests.support import scenes

# Seconds after a kill within which a worker must be back: one of TorchServe's back-off, and the import of torch.
BACK = 3.0


def test_killed_workers_cost_no_request(shared_scene):
    scene = shared_scene
    load = scene.load(scene.long_enough(short=10, full=66))
    load.settle()
    back = []
    kills = 12 if scenes.FULL else 1
    for number in range(kills):
        victim = scene.workers()[number % 2]
        killed = load.event("kill -9 of a worker")
        victim.kill()
        scene.await_replaced(victim)
        back.append(time.time() - killed)
        if number < kills - 1:
            # The next kill, five seconds after the last.
            assert wait_until(lambda since=killed: time.time() - since >= 5, 10)
    result = load.result()
    scenes.keep(
        "worker-killed",
        "kill -9 of one of two workers every 5 s",
        result,
        back_seconds=[round(seconds, 2) for seconds in back],
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert result["calls"]["ok"] >= scenes.REQUESTS
        assert max(back) <= BACK


def test_hung_worker_is_replaced_and_the_other_goes_on(shared_scene):
    scene = shared_scene
    timeout = scene.response_timeout
    load = scene.load(scene.long_enough(short=timeout + 9, full=30))
    load.settle()
    victim = scene.workers()[0]
    hung = load.event("SIGSTOP of a worker")
    victim.send_signal(signal.SIGSTOP)
    scene.await_replaced(victim)
    took = time.time() - hung
    load.event("replaced")
    result = load.result()
    scenes.keep("worker-hung", "One of two workers hangs", result, replaced_seconds=round(took, 2), timeout=timeout)
    assert scenes.failed(result) == {}
    # What the hung worker had taken was answered late, everything else at once.
    start = int((hung - result["started"]) / result["interval"]) + 1
    meanwhile = result["series"][start : start + int(timeout / result["interval"])]
    assert sum(entry["calls"].get("ok", 0) for entry in meanwhile) > 0.5 * scene.rate * timeout
    if scenes.FULL:
        assert took <= timeout + BACK
