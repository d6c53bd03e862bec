"""Ports and processors looked at, and conditions waited for."""

from __future__ import annotations

import os
import socket

import pytest

from serving import processes
from serving.settings import HOST
from tests import ports


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
