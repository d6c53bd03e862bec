"""Start, status, restart, and stop of the service, through its command line."""

from __future__ import annotations

import shlex
import signal
import subprocess

import pytest
import requests

from serving.polling import wait_until
from serving.supervisor import parts
from tests.support import packing
from tests.support.place import make_place


@pytest.fixture(scope="module")
def disturbed_service(tmp_path_factory):
    """A service whose parts are killed; at the end of each test it is ready."""
    folder = tmp_path_factory.mktemp("disturbed_service")
    place = make_place(folder, folder / "model_store")
    packing.pack(place.settings.model_store)
    place.start()
    yield place
    place.end()


def _pids(place) -> set[int]:
    return {process.pid for process in place.processes()}


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    """The output of a command up to the first line with ``text``."""
    read = ""
    assert process.stdout is not None
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"no line with {text!r} in:\n{read}")


def test_started_service_has_its_processes(tiny_service):
    commands = [" ".join(process.cmdline()) for process in tiny_service.processes()]
    # The fork server and its worker have the same command line; the launcher is the worker's proxy process.
    expected = {
        "org.pytorch.serve.ModelServer": 1,
        "forking/server.py": 2,
        "forking/launcher.py": 1,
        "serving.sidecars.grpc.server": 1,
        "serving.supervisor.supervisor": 1,
        # nginx is missing, because it overwrites its environment variables, by which ``processes`` finds the others.
        "serving.sidecars.frontdoor": 1,
    }
    assert {program: sum(program in command for command in commands) for program in expected} == expected
    assert len(commands) == sum(expected.values())
    assert len(tiny_service.workers()) == 1


def test_status_shows_model_and_addresses(tiny_service):
    status = tiny_service.run("status")
    assert status.returncode == 0
    assert "tiny 1.0" in status.stdout
    assert tiny_service.inference in status.stdout
    state = tiny_service.state()
    for pid in (state["pid"], *state["processes"].values(), tiny_service.workers()[0].pid):
        assert f" {pid} " in status.stdout


def test_second_start_is_refused_and_the_service_continues(tiny_service):
    before = _pids(tiny_service)
    again = tiny_service.run("start")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "is already running" in again.stderr
    assert tiny_service.gateway in again.stderr
    assert _pids(tiny_service) == before


def test_restart_brings_new_processes(disturbed_service):
    before = _pids(disturbed_service)
    restarted = disturbed_service.run("restart")
    assert restarted.returncode == 0, restarted.stderr
    after = _pids(disturbed_service)
    assert len(after) == len(before)
    assert not after & before
    assert disturbed_service.run("status").returncode == 0


def test_printed_curl_line_works_and_stop_leaves_nothing(place):
    packing.pack(place.settings.model_store)
    foreground = place.begin("start", "--foreground")
    printed = _read_until(foreground, "Try: ")
    line = printed.splitlines()[-1].removeprefix("Try: ")
    answer = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=30)
    assert '"probabilities"' in answer.stdout

    scratch = place.state()["scratch"]
    stopped = place.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    rest, _ = foreground.communicate(timeout=60)
    assert (foreground.returncode, rest) == (0, "stopped\n")
    place.assert_nothing_left(scratch)
    assert place.run("status").returncode == 3
    again = place.run("stop")
    assert (again.returncode, again.stdout) == (0, "the service is not running\n")


def test_serve_starts_a_service_and_shows_a_running_one(place):
    packing.pack(place.settings.model_store)
    first = place.run("serve")
    assert (first.returncode, first.stderr) == (0, "")
    # Java's class cache exists: this start or one before it has created it.
    assert first.stdout.splitlines()[-1].startswith("Try: ")
    before = _pids(place)
    again = place.run("serve")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        0,
        "The service is already running; to load new archives, run: make restart",
    )
    assert _pids(place) == before


def test_interrupt_while_loading_ends_start(place):
    slow = {"vector_classifier.py": b"import time\n\ntime.sleep(120)\n"}
    packing.pack(place.settings.model_store, changes=slow)
    starter = place.begin("start")
    _read_until(starter, "loading tiny")
    scratch = place.state()["scratch"]
    starter.send_signal(signal.SIGINT)
    # A second signal must not interrupt the stop.
    starter.send_signal(signal.SIGTERM)
    starter.communicate(timeout=60)
    assert starter.returncode != 0
    place.assert_nothing_left(scratch)


def test_killed_frontend_is_restarted(disturbed_service):
    place = disturbed_service
    before = place.state()["processes"]
    frontend = place.process(parts.FRONTEND)
    frontend.kill()
    assert wait_until(lambda: place.pid(parts.FRONTEND) not in (0, frontend.pid), 30)
    assert wait_until(lambda: place.run("status").returncode == 0, 30)
    after = place.state()["processes"]
    assert [name for name, pid in before.items() if after[name] != pid] == [parts.FRONTEND]
    assert len(place.workers()) == 1
    answer = requests.post(f"{place.inference}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.status_code == 200
    log = place.settings.logs / "supervisor.log"
    assert wait_until(lambda: "TorchServe ready again after" in log.read_text(), 10)
    assert "TorchServe ended unexpectedly (SIGKILL); restarting it" in log.read_text()


def test_killed_fork_server_is_restarted_and_its_worker_survives(disturbed_service):
    place = disturbed_service
    (worker,) = place.workers()
    forking = place.process(parts.FORK_SERVER)
    assert worker.ppid() == forking.pid
    forking.kill()
    assert wait_until(lambda: place.pid(parts.FORK_SERVER) not in (0, forking.pid), 30)
    assert place.workers() == [worker]
    worker.kill()
    assert wait_until(lambda: place.workers() not in ([], [worker]), 30)
    assert place.workers()[0].ppid() == place.process(parts.FORK_SERVER).pid
    assert wait_until(lambda: place.run("status").returncode == 0, 30)


def test_hung_worker_does_not_outlive_the_service(place):
    packing.pack(place.settings.model_store)
    place.start()
    place.workers()[0].suspend()
    scratch = place.state()["scratch"]
    assert place.run("stop").returncode == 0
    place.assert_nothing_left(scratch)


def test_foreground_service_restarts_its_frontend(place):
    packing.pack(place.settings.model_store)
    place.environment["FASHION_HANG_TIMEOUT"] = "1"
    foreground = place.begin("start", "--foreground")
    _read_until(foreground, "Try: ")
    place.process(parts.FRONTEND).kill()
    assert "TorchServe ended unexpectedly" in _read_until(foreground, "ready again")
    assert place.run("status").returncode == 0
    place.process(parts.FRONTEND).suspend()
    printed = _read_until(foreground, "ready again")
    assert "TorchServe did not answer for 1 s and was killed; restarting it" in printed
    scratch = place.state()["scratch"]
    foreground.send_signal(signal.SIGTERM)
    rest, _ = foreground.communicate(timeout=60)
    assert (foreground.returncode, rest) == (0, "stopped\n")
    place.assert_nothing_left(scratch)


def test_supervisor_retries_until_a_missing_archive_is_back(place):
    archive = packing.pack(place.settings.model_store)
    place.environment["FASHION_BACKOFF"] = "0.1"
    foreground = place.begin("start", "--foreground")
    _read_until(foreground, "Try: ")
    packed = archive.read_bytes()
    archive.unlink()
    place.process(parts.FRONTEND).kill()
    assert "is missing" in _read_until(foreground, "attempt 5")
    assert place.run("status").returncode == 1
    archive.write_bytes(packed)
    _read_until(foreground, "ready again")
    assert place.run("status").returncode == 0
    foreground.send_signal(signal.SIGTERM)
    foreground.communicate(timeout=60)


def test_ready_means_the_same_everywhere(disturbed_service):
    """A model without workers is registered, but not ready."""
    place = disturbed_service

    def scale(workers: int) -> None:
        params = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "true"}
        requests.put(f"{place.management}/models/tiny", params=params, timeout=60).raise_for_status()

    scale(0)
    try:
        assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 503, 10)
        assert requests.get(f"{place.gateway}/v2/models/tiny/ready", timeout=5).status_code == 503
        assert place.run("status").returncode == 1
    finally:
        scale(1)
    assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 200, 30)
    assert place.run("status").returncode == 0


def test_draining_service_is_not_ready_and_still_answers(place):
    packing.pack(place.settings.model_store)
    place.environment["FASHION_DRAIN_DELAY"] = "3"
    place.start()
    place.supervisor().terminate()
    assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 503, 2)
    assert requests.post(f"{place.gateway}/predictions/tiny", json=[1, 2, 3], timeout=10).status_code == 200
    assert wait_until(lambda: place.run("status").returncode == 3, 30)


def test_killed_worker_is_replaced(tiny_service):
    before = _pids(tiny_service)
    tiny_service.workers()[0].kill()
    assert wait_until(lambda: tiny_service.run("status").returncode == 0 and _pids(tiny_service) != before, 60)
    answer = requests.post(f"{tiny_service.inference}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.status_code == 200
