"""Hung parts of the service: the supervisor restarts them."""

from __future__ import annotations

import signal
import time

import pytest

from serving.polling import wait_until
from serving.supervisor import parts
from tests.support import scenes
from tests.support.scenes import RESTART_LIMIT_S, RETRIABLE

# Of the shared service: in the short form, a short hang timeout.
ENVIRONMENT = {} if scenes.FULL else {"FASHION_HANG_TIMEOUT": "2"}


@pytest.mark.parametrize("name", [parts.GATEWAY, parts.FRONTDOOR, parts.BRIDGE, parts.FORK_SERVER])
def test_hung_part_is_restarted(shared_scene, name):
    scene = shared_scene
    load = scene.load(scene.length(50), "--connections", "16")
    load.settle()
    before, workers = scene.place.process(name), scene.place.workers()
    hung = load.event(f"the {name} hangs (SIGSTOP)")
    for process in (*(before.children() if name == parts.GATEWAY else ()), before):
        process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: scene.place.pid(name) not in (0, before.pid), scenes.PATIENCE)
    assert wait_until(scene.is_ready, scenes.PATIENCE)
    took = time.time() - hung
    load.event("ready")
    assert f"{name} did not answer for " in (scene.place.settings.logs / "supervisor.log").read_text()
    assert scene.place.workers() == workers
    result = load.finish()
    title = f"The {name} hangs (SIGSTOP)"
    scenes.keep(f"{name.replace(' ', '-').lower()}-hung", title, result, ready_seconds=round(took, 2))
    if name == parts.GATEWAY:
        # The gateway is the only way to the service. Its open requests fail when it is killed.
        assert set(scenes.failed(result)) <= {*RETRIABLE, "timeout"}
        assert any(entry["calls"].get("ok") for entry in result["series"][-4:])
    else:
        assert scenes.failed(result) == {}
    if scenes.FULL:
        # Hang timeout, and a liveness request every five seconds with a timeout of five.
        assert took <= 20 + 10 + RESTART_LIMIT_S
