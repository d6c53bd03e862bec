"""The container's privileges and limits, seen from inside, and its reachable ports."""

from __future__ import annotations

import re
import socket

from serving import settings
from tests.support.composing import IMAGE, run

MEMORY = 4 << 30
PROGRAMS = ("java", "nginx", "python", "tini")
# The ports on FASHION_LISTEN; the others are on the container's loopback address.
OUTER = {8000, 8001, 8003}
INNER = {port.number for port in settings.read({}).ports} - OUTER


def test_every_process_runs_as_an_unprivileged_user_without_capabilities(stack):
    text = stack.inside("for each in /proc/[0-9]*; do cat $each/status && echo; done 2>/dev/null")
    statuses = [dict(re.findall(r"^(\w+):\s*(.*)$", part, re.MULTILINE)) for part in text.split("\n\n") if part.strip()]
    processes = [process for process in statuses if process["Name"] not in ("sh", "cat")]
    assert {name for name in PROGRAMS for process in processes if process["Name"].startswith(name)} == set(PROGRAMS)
    for process in processes:
        assert set(process["Uid"].split()) == set(process["Gid"].split()) == {"10001"}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(process[kind], 16) == 0, process
        assert process["NoNewPrivs"] == "1"
        # 2: system calls are filtered.
        assert process["Seccomp"] == "2"


def test_the_root_is_read_only(stack):
    mounts = [line.split() for line in stack.inside("cat /proc/self/mounts").splitlines()]
    options = {mount[1]: mount[3].split(",") for mount in mounts}
    assert "ro" in options["/"]
    assert "ro" in options["/models"]
    assert "cannot touch" in stack.inside("touch /app/x /opt/x /etc/x 2>&1", check=False)
    engines_own = re.compile(r"/(proc|sys|dev)(/|$)|/etc/(resolv\.conf|hosts|hostname)$")
    writable = {path for path in options if "rw" in options[path] and not engines_own.match(path)}
    assert writable == {"/tmp", "/state"}


def test_memory_and_processes_are_limited_and_cpus_are_not(stack):
    configured = stack.inspect()["HostConfig"]
    assert configured["Memory"] == MEMORY
    # No limit, because Docker refuses a limit above the host's number of CPUs.
    assert configured["NanoCpus"] == 0
    assert 0 < configured["PidsLimit"] <= 1024
    # The kernel's value, from cgroup v2 or v1.
    script = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert int(stack.inside(script)) == MEMORY


def test_the_container_restarts_and_its_logs_are_rotated(stack):
    configured = stack.inspect()["HostConfig"]
    assert configured["RestartPolicy"]["Name"] == "unless-stopped"
    assert configured["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert not configured["Privileged"]


def test_only_the_gateways_ports_are_published(stack):
    published = {
        (inner, binding["HostIp"], int(binding["HostPort"]))
        for inner, bindings in stack.inspect()["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    }
    assert published == {("8000/tcp", "127.0.0.1", stack.gateway_port), ("8001/tcp", "127.0.0.1", stack.grpc_port)}
    for port in (stack.gateway_port, stack.grpc_port):
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_other_containers_reach_the_gateway_alone(stack):
    script = (
        "import socket\n"
        f"for port in {sorted(INNER | OUTER)!r}:\n"
        "    try:\n"
        "        socket.create_connection(({host!r}, port), timeout=1).close()\n"
        "        print(port)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    # Inside, all ports accept connections. So outside, only the listen address keeps connections away.
    inside = run("docker", "exec", stack.container, "python", "-c", script.format(host="127.0.0.1"))
    assert set(map(int, inside.split())) == INNER | OUTER
    assert set(map(int, stack.beside(script.format(host="fashion-serve")).split())) == OUTER
    # From another network, none can be reached.
    (network,) = stack.inspect()["NetworkSettings"]["Networks"].values()
    outsider = ("--rm", "--entrypoint", "python", IMAGE, "-c", script.format(host=network["IPAddress"]))
    assert run("docker", "run", *outsider) == ""
