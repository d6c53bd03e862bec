"""NVIDIA's perf_analyzer measures this service as it measures Triton; its figures are checked for presence only."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.reference import VERSION

# `make test-conformance` installs requirements/perf_analyzer.txt there.
FOLDER = Path(sys.prefix) / "perf_analyzer"
PROGRAM = FOLDER / "bin" / "perf_analyzer"
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": str(FOLDER / "nvidia/cuda_runtime/lib")}
# Three measurements of this length, and no requirement that they agree: a machine that runs tests is not quiet.
SHORT = ("--measurement-interval", "400", "--stability-percentage", "999")
# Several times the duration of a measurement.
TIMEOUT_S = 60

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="perf_analyzer exists for Linux on x86_64 only"
)


@pytest.fixture(scope="module")
def analyzer() -> Path:
    """The program; without it or one of its libraries the tests fail."""
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing; run: make test-conformance")
    linked = subprocess.run(["ldd", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    missing = [line.split()[0] for line in linked.splitlines() if line.endswith("not found")]
    if missing:
        pytest.fail(
            f"perf_analyzer lacks {', '.join(missing)}; libb64.so.0d is in Debian's libb64-0d, libcudart.so.12 in "
            "requirements/perf_analyzer.txt"
        )
    return PROGRAM


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("http", ()),
        ("http", ("--input-tensor-format", "json", "--output-tensor-format", "json", "-b", "4")),
        ("grpc", ()),
        ("grpc", ("-x", VERSION, "-b", "16", "--async")),
    ],
    ids=["HTTP", "HTTP, batches in JSON", "gRPC", "gRPC, batches of one version"],
)
def test_measures_the_service(service, analyzer, tmp_path, protocol, options):
    address = service.host if protocol == "http" else service.grpc
    report = tmp_path / "report.csv"
    measured = subprocess.run(
        [
            *(analyzer, "-m", "fashion_mlp", "-i", protocol, "-u", address, "--concurrency-range", "2"),
            *(*SHORT, *options, "-f", report),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert measured.returncode == 0, measured.stdout + measured.stderr
    (figures,) = csv.DictReader(report.read_text().splitlines())
    assert float(figures["Inferences/Second"]) > 0
    assert float(figures["p50 latency"]) > 0
    # From the service's statistics.
    assert float(figures["Server Compute Infer"]) > 0
    assert re.search(r"Inference count: [1-9]", measured.stdout), measured.stdout
