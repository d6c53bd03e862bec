"""A single caller's latency, and an experiment to lower it: a second registration of the model without batches.

    python -m bench.single_caller           needs wrk and nginx; about two minutes

TorchServe waits a millisecond for a batch to fill. Here, TorchServe has the model twice, with and without batches.
A bare nginx in front uses the one without batches while ``$connections_writing``, the number of current requests, is
small. The service does not do that; ``docs/internals/performance-log.md`` has the reasons.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from bench import local_service, reporting, wrk
from models import archiving, catalog
from models.datasets import fashion_mnist
from serving import settings
from serving.errors import ServingError
from serving.gateway import nginx_binary
from serving.gateway.nginx_binary import Nginx

MODEL = "fashion_mlp"
# The most current requests for which nginx uses the registration without batches.
LANES = (0, 1, 2, 4)
CONNECTIONS = (1, 4, 16, 64)
ROUNDS = 5
HEADERS = {"Content-Type": "application/octet-stream"}
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_buffer_size 64k; keepalive_requests 1000000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream torchserve {{ server {torchserve}; keepalive 128; keepalive_requests 1000000000; }}
  map $connections_writing $lane {{ default {model}; {lanes} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://torchserve/predictions/$lane;
    }}
  }}
}}
"""


def _register(service: local_service.Service) -> None:
    """Register the model again as ``lone``, without batches."""
    with tempfile.TemporaryDirectory() as folder:
        packed, _ = archiving.archive(catalog.get(MODEL), "1.0", Path(folder), "realtime")
        (service.model_store / "lone.mar").write_bytes(packed.read_bytes())
    parameters = {"url": "lone.mar", "model_name": "lone", "initial_workers": "1", "synchronous": "true"}
    requests.post(f"{service.management}/models", params=parameters, timeout=60).raise_for_status()


def _start(
    program: Nginx, service: local_service.Service, most: int, port: int, folder: str
) -> subprocess.Popen[bytes]:
    lanes = " ".join(f"{count} lone;" for count in range(1, most + 1))
    torchserve = service.inference.removeprefix("http://")
    config = Path(folder) / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, torchserve=torchserve, model=MODEL, lanes=lanes, port=port))
    return subprocess.Popen([program.path, "-p", folder, "-c", str(config)])


def main() -> int:
    """Write ``bench/results/lone.json``; return the exit code."""
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    loads: dict[tuple[str, int], list[wrk.Load]] = {}
    try:
        program = nginx_binary.find(settings.read().nginx)
        with ExitStack() as stack:
            service = stack.enter_context(local_service.service([MODEL]))
            _register(service)
            urls = {f"TorchServe, {name}": f"{service.inference}/predictions/{name}" for name in (MODEL, "lone")}
            for most, port in zip(LANES, local_service.free_ports(len(LANES)), strict=True):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                process = _start(program, service, most, port, folder)
                stack.callback(process.wait)
                stack.callback(process.terminate)
                urls[f"nginx, up to {most} without batches"] = f"http://127.0.0.1:{port}/"
            time.sleep(1)
            for url in urls.values():
                wrk.run(url, 64, 4, body, HEADERS)
            for turn in range(1, ROUNDS + 1):
                for name, url in urls.items():
                    print(f"\rround {turn}/{ROUNDS}: {name}      ", end="", file=sys.stderr)
                    for connections in CONNECTIONS:
                        loads.setdefault((name, connections), []).append(wrk.run(url, connections, 1, body, HEADERS))
    except (wrk.LoadError, local_service.ServiceError, ServingError, requests.RequestException) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    results = [
        {
            "way": name,
            "connections": connections,
            "requests_per_second": statistics.median(load.rate for load in each),
            "p50_ms": statistics.median(load.p50 for load in each),
            "p99_ms": statistics.median(load.p99 for load in each),
            "failed": sum(load.failed for load in each),
        }
        for (name, connections), each in loads.items()
    ]
    rows = [
        [name] + [f"{r['requests_per_second']:,.0f}, {r['p50_ms']:.2f} ms" for r in results if r["way"] == name]
        for name in urls
    ]
    print(reporting.table(["way", *(f"c={each}" for each in CONNECTIONS)], rows))
    print(f"→ {reporting.write('lone', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
