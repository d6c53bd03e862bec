"""Start, status, restart and stop, as a person runs them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import requests

from serving.polling import wait_until
from serving.supervisor import parts
from tests.support import packing
from tests.support.place import make_place


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A service that loses parts, and has them again when a test ends."""
    folder = tmp_path_factory.mktemp("lasting")
    place = make_place(folder, folder / "model_store")
    packing.pack(place.settings.model_store)
    place.start()
    yield place
    place.end()


def _pids(place) -> set[int]:
    return {process.pid for process in place.processes()}


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a command printed up to the first line that holds ``text``."""
    read = ""
    for line in process.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} never came:\n{read}")


def test_started_service_has_its_processes(tiny_service):
    commands = [" ".join(process.cmdline()) for process in tiny_service.processes()]
    # A worker is forked, and has a launcher that stands for it.
    parts = {
        "org.pytorch.serve.ModelServer": 1,
        "forking/server.py": 2,
        "forking/launcher.py": 1,
        "serving.sidecars.grpc.server": 1,
        "serving.supervisor.supervisor": 1,
        # nginx itself hides the variables by which the others are found.
        "serving.sidecars.frontdoor": 1,
    }
    assert {part: sum(part in command for command in commands) for part in parts} == parts
    assert len(commands) == sum(parts.values())
    assert len(tiny_service.workers()) == 1


def test_status_shows_model_and_addresses(tiny_service):
    status = tiny_service.run("status")
    assert status.returncode == 0
    assert "tiny 1.0" in status.stdout
    assert tiny_service.inference in status.stdout
    state = tiny_service.state()
    for pid in (state["pid"], *state["processes"].values(), tiny_service.workers()[0].pid):
        assert f" {pid} " in status.stdout


def test_second_start_is_refused_and_disturbs_nothing(tiny_service):
    before = _pids(tiny_service)
    again = tiny_service.run("start")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "runs already" in again.stderr
    assert tiny_service.gateway in again.stderr
    assert _pids(tiny_service) == before


def test_restart_brings_new_processes(lasting):
    before = _pids(lasting)
    restarted = lasting.run("restart")
    assert restarted.returncode == 0, restarted.stderr
    after = _pids(lasting)
    assert len(after) == len(before)
    assert not after & before
    assert lasting.run("status").returncode == 0


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


def test_serve_shows_what_runs_and_starts_what_does_not(place):
    packing.pack(place.settings.model_store)
    first = place.run("serve")
    assert (first.returncode, first.stderr) == (0, "")
    # The class cache is there: `make test` has made it, or this start has.
    assert first.stdout.splitlines()[-1].startswith("Try: ")
    before = _pids(place)
    again = place.run("serve")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        0,
        "The service runs already; 'make restart' takes up new archives.",
    )
    assert _pids(place) == before


def test_interrupt_while_loading_ends_start(place):
    slow = {"vector_classifier.py": b"import time\n\ntime.sleep(120)\n"}
    packing.pack(place.settings.model_store, changes=slow)
    starter = place.begin("start")
    _read_until(starter, "loading tiny")
    scratch = place.state()["scratch"]
    starter.send_signal(signal.SIGINT)
    # An impatient person; the stop that has begun goes on.
    starter.send_signal(signal.SIGTERM)
    starter.communicate(timeout=60)
    assert starter.returncode != 0
    place.assert_nothing_left(scratch)


def test_killed_frontend_is_started_again(lasting):
    place = lasting
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
    assert "TorchServe ended by itself (SIGKILL); starting it again" in log.read_text()


def test_everything_ends_with_the_supervisor_and_the_next_start_finds_nothing_left(place):
    packing.pack(place.settings.model_store)
    place.start()
    scratch = Path(place.state()["scratch"])
    place.supervisor().kill()
    # Nobody is there to end the others.
    assert wait_until(lambda: not place.processes(), 10)
    assert (place.run("status").returncode, place.run("stop").stdout) == (3, "the service is not running\n")
    place.start()
    assert requests.get(f"{place.inference}/ping", timeout=10).status_code == 200
    assert not scratch.exists()


@pytest.mark.parametrize("name", [parts.GATEWAY, parts.FRONTDOOR, parts.BRIDGE, parts.FORK_SERVER])
def test_part_that_hangs_is_replaced(hanging, name):
    place = hanging
    before, workers = place.pid(name), place.workers()
    hung = psutil.Process(before)
    for process in (*(hung.children() if name == parts.GATEWAY else ()), hung):
        process.suspend()
    assert wait_until(lambda: place.pid(name) not in (0, before), 30)
    assert wait_until(lambda: place.run("status").returncode == 0, 30)
    assert f"{name} has not answered for 1 s; ended it" in (place.settings.logs / "supervisor.log").read_text()
    assert place.workers() == workers
    answer = requests.post(f"{place.gateway}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    """A service that soon notices what hangs."""
    folder = tmp_path_factory.mktemp("hanging")
    place = make_place(folder, folder / "model_store", FASHION_HANG_TIMEOUT="1")
    packing.pack(place.settings.model_store)
    place.start()
    yield place
    place.end()


def test_killed_fork_server_costs_nothing(lasting):
    place = lasting
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


@pytest.mark.parametrize(("batch_size", "cores"), [(1, 1), (4, len(os.sched_getaffinity(0)))])
def test_frontend_keeps_to_one_core_where_no_model_has_batches(place, batch_size, cores):
    config = packing.CONFIG.replace("batchSize: 4", f"batchSize: {batch_size}")
    packing.pack(place.settings.model_store, changes={"model-config.yaml": config.encode()})
    place.start()
    found = [len(each.cpu_affinity()) for each in (place.process(parts.FRONTEND), *place.workers())]
    assert found == [cores, len(os.sched_getaffinity(0))]
    assert requests.post(f"{place.inference}/predictions/tiny", json=[1, 2, 3], timeout=10).status_code == 200


def test_hung_worker_does_not_outlive_the_service(place):
    packing.pack(place.settings.model_store)
    place.start()
    place.workers()[0].suspend()
    scratch = place.state()["scratch"]
    assert place.run("stop").returncode == 0
    place.assert_nothing_left(scratch)


def test_foreground_service_starts_its_frontend_again(place):
    packing.pack(place.settings.model_store)
    place.environment["FASHION_HANG_TIMEOUT"] = "1"
    foreground = place.begin("start", "--foreground")
    _read_until(foreground, "Try: ")
    place.process(parts.FRONTEND).kill()
    assert "TorchServe ended by itself" in _read_until(foreground, "ready again")
    assert place.run("status").returncode == 0
    place.process(parts.FRONTEND).suspend()
    said = _read_until(foreground, "ready again")
    assert "TorchServe has not answered for 1 s; ended it; starting it again" in said
    scratch = place.state()["scratch"]
    foreground.send_signal(signal.SIGTERM)
    rest, _ = foreground.communicate(timeout=60)
    assert (foreground.returncode, rest) == (0, "stopped\n")
    place.assert_nothing_left(scratch)


def test_supervisor_goes_on_trying_with_an_archive_that_is_gone_for_a_while(place):
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


def test_ready_means_the_same_everywhere(lasting):
    """A model that was scaled to no worker is there, and cannot answer."""
    place = lasting
    scale = {"min_worker": 0, "max_worker": 0, "synchronous": "true"}
    requests.put(f"{place.management}/models/tiny", params=scale, timeout=60).raise_for_status()
    try:
        assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 503, 10)
        assert requests.get(f"{place.gateway}/v2/models/tiny/ready", timeout=5).status_code == 503
        assert place.run("status").returncode == 1
    finally:
        scale.update(min_worker=1, max_worker=1)
        requests.put(f"{place.management}/models/tiny", params=scale, timeout=60).raise_for_status()
    assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 200, 30)
    assert place.run("status").returncode == 0


def test_service_that_drains_says_so_and_goes_on_answering(place):
    packing.pack(place.settings.model_store)
    place.environment["FASHION_DRAIN_DELAY"] = "3"
    place.start()
    ask = {"json": [1, 2, 3], "timeout": 10}
    place.supervisor().terminate()
    assert wait_until(lambda: requests.get(f"{place.gateway}/readyz", timeout=5).status_code == 503, 2)
    assert requests.post(f"{place.gateway}/predictions/tiny", **ask).status_code == 200
    assert wait_until(lambda: place.run("status").returncode == 3, 30)


def test_killed_worker_is_replaced(tiny_service):
    before = _pids(tiny_service)
    tiny_service.workers()[0].kill()
    assert wait_until(lambda: tiny_service.run("status").returncode == 0 and _pids(tiny_service) != before, 60)
    answer = requests.post(f"{tiny_service.inference}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.status_code == 200
