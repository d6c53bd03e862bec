"""Free ports, and the listeners of the others."""

from __future__ import annotations

import os
import socket

import pytest

from serving import ports
from serving.settings import HOST
from tests.support import free_ports


@pytest.mark.parametrize("host", [HOST, "::1"])
def test_port_is_free_until_a_process_listens(host):
    (port,) = free_ports.find(1)
    assert ports.is_free(host, port)
    assert not ports.listens(host, port)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
        assert not ports.is_free(host, port)
        assert ports.listens(host, port)
        assert f"(pid {os.getpid()})" in ports.listener(port)
    assert ports.is_free(host, port)


def test_port_of_a_closed_connection_is_free():
    (port,) = free_ports.find(1)
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
        # The side that closes first keeps its half in TIME_WAIT.
        server.accept()[0].close()
    assert ports.is_free(HOST, port)
