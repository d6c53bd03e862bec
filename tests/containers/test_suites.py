"""Other test suites, run against the composed gateway."""

from __future__ import annotations

import sys

import pytest

from tests.support.composing import run

# Tests that use only the gateway; the others also use the parts behind it.
INTEGRATION = [
    "tests/integration/test_bad_neighbors.py",
    "tests/integration/test_client.py",
    "tests/integration/test_gateway_answers.py",
    "tests/integration/test_gateway_routes.py",
    "tests/integration/test_predictions.py",
    "tests/integration/test_readme.py",
]
# These read the access log's file, use TorchServe's own ports, send the header that the gateway sets, or use ::1, where
# Compose publishes no port.
SELECTION = "not are_logged and not ipv6 and not other_apis and not (neighbors and top_k)"
CONFORMANCE = ".venv-conformance/bin/python"


def test_the_integration_suite_passes_at_the_gateway(stack):
    output = run(
        *(sys.executable, "-m", "pytest", "-q", *INTEGRATION, "-k", SELECTION),
        environment={"FASHION_URL": stack.url},
    )
    print(output[-500:])


# The tests of exported networks use no service.
IGNORED = [f"--ignore=tests/conformance/{name}.py" for name in ("test_kserve", "test_exported_to_triton")]


@pytest.mark.parametrize("tests", [("tests/conformance", *IGNORED), ("tests/conformance/test_kserve.py",)])
def test_the_official_clients_work_with_the_gateway(stack, tests):
    output = run(
        *(CONFORMANCE, "-m", "pytest", "-q", *tests),
        environment={"FASHION_URL": stack.url, "FASHION_GRPC": f"127.0.0.1:{stack.grpc_port}"},
    )
    print(output[-500:])
