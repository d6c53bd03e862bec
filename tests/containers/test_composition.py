"""The composed service as it comes up: order, health, and that its parts find each other."""

from __future__ import annotations

import datetime
import json
import re

import pytest
import requests
from composing import SERVICES, run

from serving.settings import ROOT

BOOT = (ROOT / "examples" / "ankle_boot.png").read_bytes()


def moment(text: str) -> datetime.datetime:
    # Docker gives nanoseconds, which Python 3.10 does not read.
    return datetime.datetime.strptime(text[:26], "%Y-%m-%dT%H:%M:%S.%f")


def started(stack, service: str) -> datetime.datetime:
    return moment(stack.inspect(service)["State"]["StartedAt"])


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_healthy(stack, service):
    assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy"


def test_each_waits_until_those_that_it_needs_are_healthy(stack):
    order = json.loads(stack.compose("config", "--format", "json"))["services"]
    for service, needs in {
        "frontdoor": {"torchserve"},
        "grpc": {"torchserve"},
        "gateway": {"torchserve", "frontdoor", "grpc"},
    }.items():
        conditions = {name: need["condition"] for name, need in order[service]["depends_on"].items()}
        assert conditions == dict.fromkeys(needs, "service_healthy")
    logged = run("docker", "logs", "--timestamps", stack.container("torchserve"))
    (ready,) = [line for line in logged.splitlines() if "INFO ready after" in line]
    assert moment(ready) < min(started(stack, "frontdoor"), started(stack, "grpc"))
    assert max(started(stack, "frontdoor"), started(stack, "grpc")) < started(stack, "gateway")


def test_what_is_live_is_kept_in_the_volume(stack):
    live = json.loads(stack.inside("torchserve", "cat /state/live.json"))
    assert live.keys() >= {"fashion_mlp", "fashion_convnet"}
    (mount,) = [mount for mount in stack.inspect("torchserve")["Mounts"] if mount["Destination"] == "/state"]
    assert (mount["Type"], mount["Name"]) == ("volume", f"{stack.project}_state")


def test_the_front_door_tells_what_workers_and_nginx_count(stack):
    for _ in range(3):
        answer = requests.post(f"{stack.url}/predictions/fashion_mlp", data=BOOT, timeout=60)
        assert answer.json()["label"] == "Ankle boot"
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/metrics', timeout=10).read().decode())"
    told = run("docker", "exec", stack.container("frontdoor"), "python", "-c", ask)
    assert re.search(r'^fashion_requests_total\{.*model="fashion_mlp".*\} [1-9]', told, re.MULTILINE), told
    assert re.search(r"^nginx_up 1", told, re.MULTILINE), told


def test_monitoring_finds_what_it_scrapes(stack):
    scrapes = (ROOT / "monitoring" / "prometheus.yml").read_text()
    targets = re.findall(r"\"(\w+):(\d+)\"", scrapes)
    assert {name for name, _ in targets} <= set(SERVICES)
    # The names that Prometheus would ask, on the network where it would be.
    ask = (
        "import urllib.request as u\n"
        f"for host, port in {targets!r}: u.urlopen(f'http://{{host}}:{{port}}/metrics', timeout=10)"
    )
    assert run("docker", "exec", stack.container("grpc"), "python", "-c", ask) == ""
