"""The container under faults: killed, stopped, overloaded, a process killed, or unable to start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from handlers import limits
from serving.settings import ROOT
from tests.support import packing
from tests.support.composing import IMAGE, inspect, run, wait_until
from tests.support.steady_load import Load

# Limit for a recovery on an idle machine.
RECOVERY_S = 15.0
BULK = np.random.default_rng(1).integers(0, 256, (limits.EXAMPLES, 28 * 28), np.uint8).tobytes()
RAW = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}


def grpc_serves(stack) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def serves(stack) -> bool:
    return stack.is_ready() and grpc_serves(stack)


def send_bulk(stack, model: str = "fashion_convnet") -> requests.Response:
    return requests.post(f"{stack.url}/predictions/{model}", data=BULK, headers=RAW, timeout=120)


def restarts(stack) -> int:
    return int(stack.inspect()["RestartCount"])


def while_busy(stack, action: Callable[[], object], count: int = 6) -> list[requests.Response]:
    """Send bulk requests, call ``action`` as soon as the worker computes, and return the answers."""
    cpu_time = "cat /proc/[0-9]*/stat 2>/dev/null | awk '{total += $14} END {print total}'"
    before = int(stack.inside(cpu_time))
    with ThreadPoolExecutor(count) as pool:
        sent = [pool.submit(send_bulk, stack) for _ in range(count)]
        # After 0.1 s of CPU time, the worker has read the first request and computes it.
        wait_until(lambda: int(stack.inside(cpu_time)) > before + 10, 30, "a worker computes")
        action()
        return [each.result() for each in sent]


def test_a_killed_container_is_ready_again_in_time(ready):
    before, limit = restarts(ready), ready.slowed(RECOVERY_S)
    # Like the kernel's out-of-memory killer. After `docker kill` the engine would leave the container stopped.
    os.kill(ready.inspect()["State"]["Pid"], signal.SIGKILL)
    started = time.monotonic()
    wait_until(lambda: restarts(ready) > before, limit, "the container is started again")
    wait_until(lambda: serves(ready), limit - (time.monotonic() - started), "the service is ready again")
    print(f"ready again after {time.monotonic() - started:.1f} s, limit {limit:.0f} s")


def test_compose_starts_a_manually_killed_container_again(ready):
    run("docker", "kill", "--signal", "KILL", ready.container)
    ready.up()
    assert serves(ready)


@pytest.mark.parametrize("name", ["java", "nginx", "python"])
def test_the_container_outlives_its_processes(ready, name):
    def recoveries() -> int:
        return run("docker", "logs", ready.container).count("ready again after")

    before, earlier, limit = restarts(ready), recoveries(), ready.slowed(RECOVERY_S)
    # All Python processes except the supervisor, whose parent is tini (pid 1).
    ready.inside(f"kill -9 $(cat /proc/[0-9]*/stat | awk '$2 ~ /{name}/ && $4 != 1 {{print $1}}')", check=False)
    started = time.monotonic()
    wait_until(lambda: recoveries() > earlier and serves(ready), limit, "the service is ready again")
    print(f"{name}: ready again after {time.monotonic() - started:.1f} s, limit {limit:.0f} s")
    assert restarts(ready) == before


def test_a_container_restarts_when_its_supervisor_ends(ready):
    before = restarts(ready)
    ready.inside("kill -9 $(cat /proc/[0-9]*/stat | awk '$4 == 1 && $2 ~ /python/ {print $1}')", check=False)
    wait_until(lambda: restarts(ready) > before, 10, "the container starts again")
    wait_until(lambda: serves(ready), ready.slowed(RECOVERY_S), "the service is ready again")


def test_sigterm_under_load_loses_no_request(ready):
    with Load(ready.url) as load:
        wait_until(lambda: load.answered > 200, 30, "load")
        # Like an update: the container is stopped with SIGTERM, removed, and created again.
        ready.up("--force-recreate")
        after = load.answered
        wait_until(lambda: load.answered > after + 200, 30, "load")
    print(dict(load.outcomes))
    assert load.wrong == {}
    assert load.outcomes["right"] == load.answered


def test_sigterm_finishes_requests_in_flight(ready):
    name = ready.container
    answers = while_busy(ready, lambda: run("docker", "kill", "--signal", "TERM", name))
    assert [(answer.status_code, len(answer.content)) for answer in answers] == [(200, limits.EXAMPLES * 10 * 4)] * 6
    wait_until(lambda: not inspect(name)["State"]["Running"], 30, "the container ends")
    assert inspect(name)["State"]["ExitCode"] == 0


def test_a_flood_of_bulk_requests_stays_within_the_memory_limit(ready):
    before = restarts(ready)
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda number: send_bulk(ready, ("fashion_mlp", "fashion_convnet")[number % 2]), range(96))
        )
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {200, 503}
    assert 200 in statuses
    script = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null"
    killed = [line for line in ready.inside(script, check=False).splitlines() if "oom_kill " in line]
    assert killed == ["oom_kill 0"]
    script = "cat /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes 2>/dev/null"
    print(f"peak memory: {int(ready.inside(script, check=False).split()[0]) / 2**30:.1f} GB")
    assert restarts(ready) == before
    assert serves(ready)


def start_alone(store: Path, *options: str) -> tuple[int, str]:
    """Run the image with a model store until it ends; returns the exit code and the output."""
    name = run(
        *("docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp:exec", "--tmpfs", "/state:uid=10001"),
        *("--volume", f"{store}:/models:ro", *options, IMAGE),
    ).strip()
    try:
        wait_until(lambda: not inspect(name)["State"]["Running"], 60, "the container ends")
        return inspect(name)["State"]["ExitCode"], run("docker", "logs", name)
    finally:
        run("docker", "rm", "--force", name)


def test_a_container_without_archives_ends(tmp_path):
    tmp_path.chmod(0o755)
    code, output = start_alone(tmp_path)
    assert code == 1
    assert "holds no archive" in output
    assert "Traceback" not in output


def test_a_container_whose_workers_cannot_start_ends(tmp_path):
    store = tmp_path / "store"
    broken = "raise RuntimeError('cannot start, for a test')\n"
    packing.pack(store, changes={"vector_classifier.py": broken.encode()})
    tmp_path.chmod(0o755)
    store.chmod(0o755)
    code, output = start_alone(store)
    assert code == 1
    assert "ended while it loaded the model" in output


def test_a_container_that_requires_a_gpu_ends_without_one():
    code, output = start_alone(
        ROOT / "model_store", "--env", "FASHION_DEVICE_TYPE=gpu", "--env", "NVIDIA_VISIBLE_DEVICES=void"
    )
    assert code == 1
    assert "TorchServe found no GPU" in output
