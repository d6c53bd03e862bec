"""Prometheus finds every replica, canary and edge of a fleet by its name."""

from __future__ import annotations

import collections
import json
import subprocess
from pathlib import Path

import pytest

from serving.settings import ROOT
from tests.fleet import images
from tests.fleet.fleet import PATIENCE_S, REGISTRY, image
from tests.fleet.swarm.lab import OUTSIDE
from tests.support.composing import wait_until

pytestmark = pytest.mark.parametrize("engine", ["swarm"], indirect=True)
# As in lab_monitoring.yml.
PROMETHEUS = f"{REGISTRY}/prometheus:test"
MONITORING = (ROOT / "deploy/swarm/monitoring.yml", ROOT / "tests/fleet/swarm/lab_monitoring.yml")


def _answering(fleet) -> dict[str, int]:
    """The number of targets that answered their last scrape, by job; empty while Prometheus does not answer."""
    url = f"http://{fleet.lab.address(1)}:9090/api/v1/query?query=up"
    answer = subprocess.run([*OUTSIDE, "curl", "--silent", url], capture_output=True, text=True)
    if answer.returncode:
        return {}
    series = json.loads(answer.stdout)["data"]["result"]
    return dict(collections.Counter(each["metric"]["job"] for each in series if each["value"][1] == "1"))


def test_prometheus_finds_replicas_canaries_and_edges(fleet):
    fleet.lab.do("load", images.build(PROMETHEUS, Path(__file__).parent / "prometheus"))
    fleet.apply(*MONITORING, FASHION_CANARY_IMAGE=image("1.1"), FASHION_CANARY_REPLICAS="1")
    try:
        expected = {"torchserve": 4, "frontdoor": 4, "edge": 3}
        wait_until(lambda: _answering(fleet) == expected, PATIENCE_S, f"{expected} answer")
    finally:
        fleet.lab.docker(1, "service", "rm", "fashion_prometheus")
