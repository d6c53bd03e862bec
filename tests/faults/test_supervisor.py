"""Faults around the supervisor: it is killed, the disk is full, the clock is set."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from serving.polling import wait_until
from serving.supervisor import parts
from tests.support import disks, scenes
from tests.support.scenes import RESTART_LIMIT_S, RETRIABLE, Scene


def test_parts_end_with_a_killed_supervisor_and_the_next_start_succeeds(scene):
    load = scene.load(scene.length(30))
    load.settle()
    scratch = Path(scene.place.state()["scratch"])
    killed = load.event("kill -9 of the supervisor")
    scene.place.supervisor().kill()
    assert wait_until(lambda: not scene.place.processes(), 10)
    ended = time.time() - killed
    assert scene.place.run("status").returncode == 3
    assert scene.place.run("stop").stdout == "the service is not running\n"
    scene.place.start()
    assert not scratch.exists()
    load.event("started again")
    took = time.time() - killed
    result = load.finish()
    scenes.keep(
        "supervisor-killed",
        "kill -9 of the supervisor, and a start",
        result,
        gone_seconds=round(ended, 2),
        ready_seconds=round(took, 2),
    )
    assert set(scenes.failed(result)) <= RETRIABLE
    assert any(entry["calls"].get("ok") for entry in result["series"][-4:])
    if scenes.FULL:
        assert ended < 1
        assert took <= RESTART_LIMIT_S


def test_frontend_that_dies_on_a_full_disk_is_restarted_when_there_is_space(prepared, tmp_path, rate):
    place, archive = prepared
    place.environment["FASHION_BACKOFF"] = "0.2"
    with disks.small(place.settings.run, "2m"):
        place.start()
        try:
            scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
            log = place.settings.logs / "supervisor.log"
            load = scene.load(scene.length(30))
            load.settle()
            filling = disks.fill(place.settings.run)
            frontend = scene.frontend()
            load.event("no space, and kill -9 of TorchServe's frontend")
            frontend.kill()
            assert wait_until(lambda: "TorchServe: restart attempt 3 failed" in log.read_text(), 30)
            assert "No space left on device" in log.read_text()
            filling.unlink()
            freed = load.event("space again")
            assert wait_until(scene.is_ready, scenes.PATIENCE)
            took = time.time() - freed
            load.event("ready")
            result = load.finish()
            assert scene.frontend() != frontend
        finally:
            assert place.run("stop").returncode == 0
    scenes.keep("disk-full", "TorchServe dies while the disk is full", result, ready_seconds=round(took, 2))
    assert set(scenes.failed(result)) <= RETRIABLE
    if scenes.FULL:
        assert took <= RESTART_LIMIT_S + 5


@pytest.fixture
def clock(tmp_path):
    """Variables that give a process a clock of its own, and a function that sets it forward by some seconds."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "setting the clock of a service needs libfaketime; on Debian: apt-get install faketime"
    stamp = tmp_path / "clock"
    stamp.write_text("+0")
    variables = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_CACHE_DURATION": "1",
        # As on a real machine, where setting the clock does not affect the monotonic clock.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return variables, lambda seconds: stamp.write_text(f"{seconds:+d}")


def test_setting_the_clock_by_an_hour_changes_nothing(prepared, tmp_path, rate, clock):
    place, archive = prepared
    variables, set_clock = clock
    place.environment.update(variables)
    place.environment["FASHION_HANG_TIMEOUT"] = "3"
    place.start()
    scene = Scene(place, [archive], tmp_path, rate(place, [archive]), 0)
    load = scene.load(scene.length(30))
    load.settle()
    before = place.state()["processes"]
    for seconds, change in ((3600, "an hour forward"), (-3600, "an hour back"), (0, "to the right time")):
        load.event(f"clock set {change}")
        set_clock(seconds)
        # Longer than the hang timeout.
        load.settle(5)
        assert wait_until(lambda: place.run("status").returncode == 0, scenes.PATIENCE)
        assert place.state()["processes"] == before
    set_clock(-3600)
    frontend = scene.frontend()
    frontend.kill()
    load.event("kill -9 of TorchServe's frontend, clock an hour back")
    assert wait_until(lambda: place.pid(parts.FRONTEND) not in (0, frontend.pid), scenes.PATIENCE)
    assert wait_until(scene.is_ready, scenes.PATIENCE)
    result = load.finish()
    scenes.keep("clock", "The clock is set by an hour, forward and back", result)
    assert set(scenes.failed(result)) <= RETRIABLE
    assert place.run("stop").returncode == 0
    assert not psutil.pid_exists(before[parts.GATEWAY])
