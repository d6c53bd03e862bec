"""The other suites, against the composed gateway."""

from __future__ import annotations

import sys

import pytest

from tests.support.composing import run

# Tests of what the gateway tells its callers; the others look behind it.
INTEGRATION = [
    "tests/integration/test_bad_neighbors.py",
    "tests/integration/test_client.py",
    "tests/integration/test_gateway_answers.py",
    "tests/integration/test_gateway_routes.py",
    "tests/integration/test_predictions.py",
    "tests/integration/test_readme.py",
]
# They read the access log's file, ask TorchServe's own ports, or send the header that the gateway sets.
NOT_HERE = "not are_logged and not other_apis and not (neighbors and top_k)"
CONFORMANCE = ".venv-conformance/bin/python"


def test_the_integration_suite_passes_at_the_gateway(stack):
    said = run(
        *(sys.executable, "-m", "pytest", "-q", *INTEGRATION, "-k", NOT_HERE),
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
