"""The composed service after its start: health, volume, logs, and metrics."""

from __future__ import annotations

import json

import requests
import yaml

from serving.settings import ROOT
from tests.support.composing import run, wait_until

BOOT = (ROOT / "examples" / "ankle_boot.png").read_bytes()
# Limit for the start, from built images to an answer of /readyz, on an idle machine.
START_S = 15.0


def test_the_service_is_healthy_in_time(ready):
    limit = ready.slowed(START_S)
    ready.compose("down")
    seconds = ready.up()
    print(f"healthy after {seconds:.1f} s, limit {limit:.0f} s")
    assert seconds < limit
    assert ready.inspect()["State"]["Health"]["Status"] == "healthy"
    assert ready.is_ready()


def test_the_live_versions_are_kept_in_the_volume(stack):
    live = json.loads(stack.inside("cat /state/live.json"))
    assert live.keys() >= {"fashion_mlp", "fashion_convnet"}
    (mount,) = [mount for mount in stack.inspect()["Mounts"] if mount["Destination"] == "/state"]
    assert (mount["Type"], mount["Name"]) == ("volume", f"{stack.project}_state")


def test_the_pages_that_prometheus_scrapes_exist(stack):
    for _ in range(3):
        answer = requests.post(f"{stack.url}/predictions/fashion_mlp", data=BOOT, timeout=60)
        assert answer.json()["label"] == "Ankle boot"
    jobs = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    urls = [
        f"http://{target}{job.get('metrics_path', '/metrics')}"
        for job in jobs
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    script = f"import urllib.request as u\nfor url in {urls!r}: print(u.urlopen(url, timeout=10).read().decode())"
    pages = stack.beside(script)
    for line in (
        'fashion_requests_total{format="png",model="fashion_mlp",status="200",version="1.0"} ',
        "nginx_up 1",
        "QueueTime_count{",
    ):
        assert f"\n{line}" in pages, pages


def test_the_engine_has_the_logs_of_all_parts(stack):
    request_id = requests.post(f"{stack.url}/predictions/fashion_mlp", data=BOOT, timeout=60).headers["X-Request-Id"]

    def logged() -> list[str]:
        return run("docker", "logs", stack.container).splitlines()

    wait_until(lambda: any(f'"id":"{request_id}"' in line for line in logged()), 10, "the access log")
    lines = logged()
    assert any(line.startswith("Ready after ") for line in lines)
    assert any("-fashion_mlp_1.0-stdout handlers.transport.pipeline" in line for line in lines)
    assert any("gRPC on 127.0.0.1:8004" in line for line in lines)
