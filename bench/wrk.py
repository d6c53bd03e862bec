"""Load by the program wrk (Debian's package ``wrk``): one body sent many times, and the figures."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

_SCRIPT = """
wrk.method = "POST"
local file = io.open(%(body)s, "rb")
wrk.body = file:read("*all")
file:close()
%(headers)s
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"requests": %%d, "microseconds": %%d, "p50": %%.1f, "p99": %%.1f, "failed": %%d}\\n',
    summary.requests - errors.status, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class LoadError(Exception):
    """The load failed; the message has the remedy."""


@dataclasses.dataclass(frozen=True)
class Load:
    """The figures of one round of load.

    Attributes:
        rate: answered requests per second.
        p50, p99: latency in milliseconds.
        failed: requests without an answer, or with a status other than 2xx and 3xx.
    """

    rate: float
    p50: float
    p99: float
    failed: int


def run(url: str, connections: int, seconds: int, body: bytes, headers: Mapping[str, str]) -> Load:
    """POST ``body`` repeatedly from one thread.

    Raises:
        LoadError: wrk is missing, or cannot reach the URL.
    """
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk is missing; on Debian: sudo apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        set_headers = "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in headers.items())
        script = Path(folder) / "load.lua"
        script.write_text(_SCRIPT % {"body": json.dumps(f"{folder}/body"), "headers": set_headers})
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = result.stdout.strip().splitlines()
    if result.returncode or not lines or not lines[-1].startswith("{"):
        reason = result.stderr.strip() or result.stdout.strip()
        raise LoadError(f"wrk failed at {url}: {reason}; is the service running?")
    totals = json.loads(lines[-1])
    rate = totals["requests"] / totals["microseconds"] * 1e6
    return Load(rate, totals["p50"] / 1000, totals["p99"] / 1000, totals["failed"])
