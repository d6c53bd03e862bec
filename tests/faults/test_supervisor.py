"""The supervisor and its parts: killed, hung, on a full disk, with a clock that is set."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
import requests

from serving.polling import wait_until
from serving.supervisor import parts
from tests.support import disks, scenes
from tests.support.scenes import Scene

# Seconds from a kill, or from when a hung part was noticed, until the service is ready again.
REVIVED = 10.0
# What a caller may try again.
RETRIABLE = {"refused", "unconnected", "broken"}


def _is_ready(scene: Scene) -> bool:
    try:
        return requests.get(scene.place.gateway + "/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_parts_end_with_a_killed_supervisor_and_the_next_start_is_clean(scene):
    load = scene.load(scene.long_enough(short=20, full=30))
    load.settle()
    killed = load.event("kill -9 of the supervisor")
    scene.place.supervisor().kill()
    assert wait_until(lambda: not scene.place.processes(), 10)
    gone = time.time() - killed
    scene.place.start()
    load.event("started again")
    took = time.time() - killed
    result = load.result()
    scenes.keep(
        "supervisor-killed",
        "kill -9 of the supervisor, and a start",
        result,
        gone_seconds=round(gone, 2),
        ready_seconds=round(took, 2),
    )
    assert set(scenes.failed(result)) <= RETRIABLE
    assert any(entry["calls"].get("ok") for entry in result["series"][-4:])
    if scenes.FULL:
        assert gone < 1
        assert took <= REVIVED


@pytest.fixture
def hanging(prepared, tmp_path, rate):
    """A service that notices sooner what hangs, in the short form."""
    place, archive = prepared
    if not scenes.FULL:
        place.environment["FASHION_HANG_TIMEOUT"] = "2"
    place.start()
    return Scene(place, [archive], tmp_path, rate(place, [archive]), 0)


@pytest.mark.parametrize("name", [parts.GATEWAY, parts.FRONTDOOR, parts.BRIDGE, parts.FORK_SERVER])
def test_hung_part_is_replaced(hanging, name):
    scene = hanging
    load = scene.load(scene.long_enough(short=16, full=50), "--connections", "16")
    load.settle()
    before = scene.place.process(name)
    hung = load.event(f"the {name} hangs (SIGSTOP)")
    for process in (*(before.children() if name == parts.GATEWAY else ()), before):
        process.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: scene.place.pid(name) not in (0, before.pid), scenes.PATIENCE)
    assert wait_until(lambda: _is_ready(scene), scenes.PATIENCE)
    took = time.time() - hung
    load.event("ready")
    result = load.result()
    title = f"The {name} hangs (SIGSTOP)"
    scenes.keep(f"{name.replace(' ', '-').lower()}-hung", title, result, ready_seconds=round(took, 2))
    if name == parts.GATEWAY:
        # Callers reach nothing else; what they had sent breaks when the hung one is killed.
        assert set(scenes.failed(result)) <= {*RETRIABLE, "timeout"}
        assert any(entry["calls"].get("ok") for entry in result["series"][-4:])
    else:
        assert scenes.failed(result) == {}
    if scenes.FULL:
        # It is asked every five seconds, and has as long to answer.
        assert took <= 20 + 10 + REVIVED


def test_frontend_that_dies_on_a_full_disk_is_back_when_there_is_room(prepared, tmp_path, rate):
    place, archive = prepared
    place.environment["FASHION_BACKOFF"] = "0.2"
    with disks.small(place.settings.run, "2m"):
        place.start()
        try:
            scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
            log = place.settings.logs / "supervisor.log"
            load = scene.load(scene.long_enough(short=20, full=30))
            load.settle()
            filling = disks.fill(place.settings.run)
            frontend = scene.frontend()
            load.event("no room, and kill -9 of TorchServe's frontend")
            frontend.kill()
            assert wait_until(lambda: "TorchServe: restart attempt 3 failed" in log.read_text(), 30)
            assert "No space left on device" in log.read_text()
            filling.unlink()
            room = load.event("room again")
            assert wait_until(lambda: _is_ready(scene), scenes.PATIENCE)
            took = time.time() - room
            load.event("ready")
            result = load.result()
            assert scene.frontend() != frontend
        finally:
            assert place.run("stop").returncode == 0
    scenes.keep("disk-full", "TorchServe dies while the disk is full", result, ready_seconds=round(took, 2))
    assert set(scenes.failed(result)) <= RETRIABLE
    if scenes.FULL:
        assert took <= REVIVED + 5


@pytest.fixture
def clock(tmp_path):
    """Variables that have a process live by a clock of its own, and a function that sets that by so many seconds."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "setting the clock of a service needs libfaketime; Debian: apt-get install faketime"
    stamp = tmp_path / "clock"
    stamp.write_text("+0")
    variables = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_CACHE_DURATION": "1",
        # As on a real machine: what counts seconds is not set.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return variables, lambda seconds: stamp.write_text(f"{seconds:+d}")


def test_clock_that_is_set_by_an_hour_changes_nothing(prepared, tmp_path, rate, clock):
    place, archive = prepared
    variables, set_clock = clock
    place.environment.update(variables)
    place.environment["FASHION_HANG_TIMEOUT"] = "3"
    place.start()
    scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
    load = scene.load(scene.long_enough(short=24, full=30))
    load.settle()
    before = place.state()["processes"]
    for seconds, what in ((3600, "forward"), (-3600, "back"), (0, "right again")):
        load.event(f"the clock goes {what}")
        set_clock(seconds)
        # Longer than a part may be silent.
        load.settle(5)
        assert place.state()["processes"] == before
        assert place.run("status").returncode == 0
    set_clock(-3600)
    frontend = scene.frontend()
    frontend.kill()
    load.event("kill -9 of TorchServe's frontend, an hour back")
    assert wait_until(lambda: place.pid(parts.FRONTEND) not in (0, frontend.pid), scenes.PATIENCE)
    assert wait_until(lambda: _is_ready(scene), scenes.PATIENCE)
    result = load.result()
    scenes.keep("clock", "The clock is set by an hour, forward and back", result)
    assert set(scenes.failed(result)) <= RETRIABLE
    assert place.run("stop").returncode == 0
    assert not psutil.pid_exists(before[parts.GATEWAY])
