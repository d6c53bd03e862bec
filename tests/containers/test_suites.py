"""Start order and health, and the other suites against the composed gateway."""

from __future__ import annotations

import datetime
import json
import sys

import pytest
from composing import SERVICES, run

# Tests of what the gateway tells its callers; the others look behind it.
INTEGRATION = [
    "tests/integration/test_bad_neighbours.py",
    "tests/integration/test_client.py",
    "tests/integration/test_gateway_answers.py",
    "tests/integration/test_gateway_routes.py",
    "tests/integration/test_predictions.py",
    "tests/integration/test_readme.py",
]
CONFORMANCE = ".venv-conformance/bin/python"


def moment(text: str) -> datetime.datetime:
    # Docker gives nanoseconds, which Python 3.10 does not read.
    return datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_healthy(stack, service):
    assert stack.inspect(service)["State"]["Health"]["Status"] == "healthy"


def test_each_waits_for_those_that_it_needs(stack):
    order = json.loads(stack.compose("config", "--format", "json"))["services"]
    for service, needs in {
        "frontdoor": {"torchserve"},
        "grpc": {"torchserve"},
        "gateway": {"torchserve", "frontdoor", "grpc"},
    }.items():
        conditions = {name: need["condition"] for name, need in order[service]["depends_on"].items()}
        assert conditions == dict.fromkeys(needs, "service_healthy")


def test_health_means_that_a_prediction_was_right(stack):
    said = stack.compose("logs", "--no-log-prefix", "torchserve")
    assert "ready after" in said
    assert stack.inside("torchserve", "cat /state/live.json").count("version") >= 4


def test_the_integration_suite_passes_at_the_gateway(stack):
    said = run(
        *(sys.executable, "-m", "pytest", "-q", *INTEGRATION, "-k", "not are_logged and not other_apis and not (neighbours and top_k)"),
        environment={"FASHION_URL": stack.url},
    )
    print(said[-500:])


@pytest.mark.parametrize(
    "tests", [("tests/conformance", "--ignore=tests/conformance/test_kserve.py"), ("tests/conformance/test_kserve.py",)]
)
def test_the_official_clients_take_the_gateway_as_it_is(stack, tests):
    said = run(
        *(CONFORMANCE, "-m", "pytest", "-q", *tests),
        environment={"FASHION_URL": stack.url, "FASHION_GRPC": f"127.0.0.1:{stack.grpc_port}"},
    )
    print(said[-500:])
