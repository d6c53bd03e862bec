"""What the containers may do, as it looks from inside, and who can reach them."""

from __future__ import annotations

import re
import socket

import pytest
from composing import SERVICES, TORCHSERVE, run

MAIN = {"torchserve": "java", "frontdoor": "python", "grpc": "python", "gateway": "nginx"}
LIMITS = {"torchserve": 4 << 30, "frontdoor": 512 << 20, "grpc": 1 << 30, "gateway": 512 << 20}
# All that listens, whoever may ask.
INNER_PORTS = {"torchserve": (8080, 8081, 8082, 7070, 7071), "frontdoor": (8002,), "grpc": (8004,), "gateway": (8003,)}


def status(stack, service: str) -> list[dict[str, str]]:
    """`/proc/<pid>/status` of every process of a container, but for the shell that reads it."""
    text = stack.inside(service, "for each in /proc/[0-9]*; do cat $each/status && echo; done 2>/dev/null")
    found = [dict(re.findall(r"^(\w+):\s*(.*)$", part, re.MULTILINE)) for part in text.split("\n\n") if part.strip()]
    return [process for process in found if process["Name"] not in ("sh", "cat")]


@pytest.mark.parametrize("service", SERVICES)
def test_every_process_is_an_unprivileged_user_without_capabilities(stack, service):
    processes = status(stack, service)
    assert any(process["Name"].startswith(MAIN[service]) for process in processes), processes
    for process in processes:
        assert set(process["Uid"].split()) == set(process["Gid"].split()) == {"10001"}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(process[kind], 16) == 0, process
        assert process["NoNewPrivs"] == "1"
        # 2: system calls go through a filter.
        assert process["Seccomp"] == "2"


@pytest.mark.parametrize("service", SERVICES)
def test_the_root_is_read_only(stack, service):
    mounts = [line.split() for line in stack.inside(service, "cat /proc/self/mounts").splitlines()]
    options = {mount[1]: mount[3].split(",") for mount in mounts}
    assert "ro" in options["/"]
    assert "cannot touch" in stack.inside(service, "touch /app/x /opt/x /etc/x 2>&1", check=False)
    writable = {
        place
        for place in options
        if "rw" in options[place] and not re.match(r"/(proc|sys|dev)(/|$)", place) and place != "/etc/resolv.conf"
    }
    expected = {"torchserve": {"/tmp", "/state"}, "gateway": {"/tmp", "/state"}, "frontdoor": {"/state"}, "grpc": set()}
    assert writable - {"/etc/hosts", "/etc/hostname"} == expected[service]
    if service == "torchserve":
        assert "ro" in options["/models"]


@pytest.mark.parametrize("service", SERVICES)
def test_memory_processors_and_processes_are_limited(stack, service):
    configured = stack.inspect(service)["HostConfig"]
    assert configured["Memory"] == LIMITS[service]
    assert 0 < configured["NanoCpus"] <= 2e9
    assert 0 < configured["PidsLimit"] <= 1024
    # The kernel's own word, where this is the newer kind of control group or the older.
    read = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert int(stack.inside(service, read)) == LIMITS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_it_starts_again_and_its_logs_are_rotated(stack, service):
    configured = stack.inspect(service)["HostConfig"]
    assert configured["RestartPolicy"]["Name"] == "unless-stopped"
    assert configured["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert not configured["Privileged"]


def test_nothing_but_the_gateway_is_published(stack):
    published = {
        service: {
            (inner, binding["HostIp"], int(binding["HostPort"]))
            for inner, bindings in stack.inspect(service)["NetworkSettings"]["Ports"].items()
            for binding in bindings or ()
        }
        for service in SERVICES
    }
    gateway = {("8000/tcp", "127.0.0.1", stack.gateway_port), ("8001/tcp", "127.0.0.1", stack.grpc_port)}
    assert published == {"torchserve": set(), "frontdoor": set(), "grpc": set(), "gateway": gateway}
    for port in (stack.gateway_port, stack.grpc_port):
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_other_containers_cannot_reach_the_inner_network(stack):
    addresses = [
        (stack.inspect(service)["NetworkSettings"]["Networks"][f"{stack.project}_inside"]["IPAddress"], port)
        for service, ports in INNER_PORTS.items()
        for port in ports
    ]
    script = (
        "import socket\n"
        f"for address in {addresses!r}:\n"
        "    try:\n"
        "        socket.create_connection(address, timeout=1).close()\n"
        "        print(address)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    # From inside every one of them listens, so that the silence outside is the network's doing.
    reached = run("docker", "exec", stack.container("frontdoor"), "python", "-c", script)
    assert len(reached.splitlines()) == len(addresses), reached
    outside = run("docker", "run", "--rm", "--entrypoint", "python", TORCHSERVE, "-c", script)
    assert outside == ""


@pytest.mark.parametrize("service", ["torchserve", "frontdoor", "grpc"])
def test_the_inner_network_leads_nowhere(stack, service):
    routes = stack.inside(service, "cat /proc/net/route").splitlines()[1:]
    # Destination 0: a default route.
    assert routes
    assert all(route.split()[1] != "00000000" for route in routes), routes
