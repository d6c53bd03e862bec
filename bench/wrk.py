"""Load by wrk, a program of its own (Debian's package ``wrk``): one body, many times, and what came of it."""

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
    """The load could not be made; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What one round of load gave.

    Attributes:
        rate: answered requests a second.
        p50, p99: milliseconds.
        failed: requests that got no answer, or one other than 2xx and 3xx.
    """

    rate: float
    p50: float
    p99: float
    failed: int


def run(url: str, connections: int, seconds: int, body: bytes, headers: Mapping[str, str]) -> Load:
    """POST ``body`` over and over from one thread.

    Raises:
        LoadError: wrk is missing, or cannot reach the address.
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
        ran = subprocess.run(command, capture_output=True, text=True)
    lines = ran.stdout.strip().splitlines()
    if ran.returncode or not lines or not lines[-1].startswith("{"):
        raise LoadError(f"wrk failed at {url}: {ran.stderr.strip() or ran.stdout.strip()}; is the service running?")
    told = json.loads(lines[-1])
    rate = told["requests"] / told["microseconds"] * 1e6
    return Load(rate, told["p50"] / 1000, told["p99"] / 1000, told["failed"])
