"""HAProxy in front of one, two, … replicas: one address for each number of replicas."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench import local_service
from serving import polling, ports
from serving.settings import HOST

_HEAD = """global
  nbthread 1
  tune.bufsize 131072
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 20s
  timeout queue 1s
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response response-timeout 500 502 503
  option http-buffer-request
"""
# Health checks every 500 ms. A replica that spends its quota answers late, so a check waits two seconds.
_BACKEND = """listen first{count}
  bind {host}:{port}
  balance leastconn
  http-reuse safe
  timeout check 2s
  option httpchk GET /readyz
  default-server check inter 500ms fall 2 rise 1 maxconn 256
"""


class EdgeError(Exception):
    """HAProxy did not start; the message has the remedy."""


@contextmanager
def edge(replicas: Sequence[str]) -> Iterator[tuple[list[str], psutil.Process]]:
    """Run HAProxy; yield the URLs for the first one, two, … of the replicas, and its process.

    Args:
        replicas: URLs of gateways.

    Raises:
        EdgeError: HAProxy is missing or did not start.
    """
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise EdgeError("haproxy is missing; on Debian: sudo apt-get install haproxy")
    numbers = local_service.free_ports(len(replicas))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        text = _HEAD
        for count, number in enumerate(numbers, 1):
            text += _BACKEND.format(count=count, host=HOST, port=number)
            text += "".join(f"  server r{i} {urlsplit(url).netloc}\n" for i, url in enumerate(replicas[:count], 1))
        path, log = Path(folder, "haproxy.cfg"), Path(folder, "haproxy.log")
        path.write_text(text)
        with log.open("wb") as output:
            process = subprocess.Popen([program, "-db", "-f", str(path)], stdout=output, stderr=subprocess.STDOUT)
        try:
            if not polling.wait_until(lambda: all(ports.listens(HOST, number) for number in numbers), 10):
                raise EdgeError(f"haproxy did not start: {log.read_text()}")
            yield [f"http://{HOST}:{number}" for number in numbers], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(10)
