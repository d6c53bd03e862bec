"""Processes started, recognised and stopped with all they started; ports looked at."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys

import psutil
import pytest

from serving import processes
from serving.processes import ProcessId
from serving.settings import HOST
from tests import ports

SLEEPS = "import time; time.sleep(600)"
# Starts one child and says its pid; neither ends by itself.
PARENT = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEPS!r}]).pid, flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); time.sleep(600)"
)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def spawn(tmp_path):
    """Start a Python program; gives its id, and its output so far as a callable."""
    started: list[ProcessId] = []
    output = tmp_path / "output"

    def start(program: str) -> tuple[ProcessId, str]:
        process = processes.spawn("program", [sys.executable, "-c", program], os.environ, tmp_path, output)
        started.append(process)
        if "print" in program:
            assert processes.wait_until(lambda: output.read_text().endswith("\n"), 10)
        return process, output.read_text()

    yield start
    for process in started:
        processes.stop(process, 0)


def test_spawned_process_leads_a_session_of_its_own(spawn, tmp_path):
    process, _ = spawn("import os; print(os.getcwd())\n" + SLEEPS)
    assert process.alive
    assert os.getsid(process.pid) == process.pid
    assert psutil.Process(process.pid).cwd() == str(tmp_path)


def test_stop_ends_children_too(spawn):
    process, said = spawn(PARENT)
    child = psutil.Process(int(said))
    assert processes.stop(process, grace=10)
    assert not process.alive
    assert not _runs(child)


def test_stop_ends_children_that_outlived_their_parent(spawn):
    process, said = spawn(PARENT)
    child = psutil.Process(int(said))
    psutil.Process(process.pid).kill()
    assert processes.wait_until(lambda: not process.alive, 10)
    assert _runs(child)
    assert processes.stop(process, grace=0)
    assert not _runs(child)


def test_stop_kills_what_ignores_sigterm(spawn):
    process, _ = spawn(STUBBORN)
    assert processes.stop(process, grace=0.2)
    assert not process.alive


def test_stop_has_what_is_suspended_end_by_itself(spawn, tmp_path):
    process, _ = spawn(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('ended', flush=True)))\n"
        "print('set', flush=True)\n" + SLEEPS
    )
    os.kill(process.pid, signal.SIGSTOP)
    assert processes.wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 10)
    assert processes.stop(process, grace=10)
    assert (tmp_path / "output").read_text() == "set\nended\n"


def test_stop_of_ended_process_does_nothing(spawn):
    process, _ = spawn("pass")
    assert processes.wait_until(lambda: not process.alive, 10)
    assert not processes.stop(process, grace=0)


def test_number_of_another_process_is_not_touched(spawn):
    process, _ = spawn("print()\n" + SLEEPS)
    predecessor = dataclasses.replace(process, created=process.created - 100)
    assert not predecessor.alive
    assert not processes.stop(predecessor, grace=0)
    assert process.alive


def test_group_of_before_the_machines_start_is_not_touched(spawn):
    process, said = spawn(PARENT)
    child = psutil.Process(int(said))
    psutil.Process(process.pid).kill()
    assert processes.wait_until(lambda: not process.alive, 10)
    assert not processes.stop(dataclasses.replace(process, created=psutil.boot_time() - 100), grace=0)
    assert _runs(child)


@pytest.mark.parametrize("host", [HOST, "::1"])
def test_port_is_free_until_somebody_listens(host):
    (port,) = ports.free(1)
    assert processes.port_is_free(host, port)
    assert not processes.listens(host, port)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
        assert not processes.port_is_free(host, port)
        assert processes.listens(host, port)
        assert f"(pid {os.getpid()})" in processes.listener(port)
    assert processes.port_is_free(host, port)


def test_port_of_a_closed_connection_is_free():
    (port,) = ports.free(1)
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
        # Closed first here, this side's half lingers in TIME_WAIT.
        server.accept()[0].close()
    assert processes.port_is_free(HOST, port)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000"}, 16),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 16),
        ({"cpu.max": "broken"}, 16),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "400000"}, 16),
    ],
    ids=[
        *("no cgroup", "v2 without quota", "v2", "v2 fraction", "v2 under one", "v2 above affinity", "broken"),
        *("v1 without quota", "v1", "v1 without period"),
    ],
)
def test_usable_cpus_are_those_of_affinity_and_quota(tmp_path, monkeypatch, files, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert processes.usable_cpus(tmp_path) == cpus


def test_usable_cpus_without_affinity_are_those_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processes.usable_cpus(tmp_path) == 1


def test_waiting_ends_with_the_condition_or_the_time():
    answers = iter([False, False, True])
    assert processes.wait_until(lambda: next(answers), 10)
    assert not processes.wait_until(lambda: False, 0)
