"""A service under real traffic, and a real Prometheus that scrapes it according to ``monitoring/prometheus.yml``."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from monitoring import dashboard
from monitoring.prometheus import Prometheus, QueryError
from serving.polling import wait_until
from serving.settings import HOST, ROOT
from tests.support import free_ports
from tests.support.place import Place

# A short scrape interval, so that the tests don't wait long for rates.
SCRAPE_INTERVAL_S = 1
# The value of Grafana's $__rate_interval in the dashboard's queries.
INTERVAL = "10s"
# Scrapes until every rate over INTERVAL has a value.
_MIN_SCRAPES = 15
TIMEOUT = 60


def program(name: str) -> str:
    """A program of Debian's package ``prometheus``; without it the tests fail."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing; on Debian: sudo apt-get install prometheus")
    return path


@contextlib.contextmanager
def prometheus(place: Place, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the service at ``place`` every second."""
    config = yaml.safe_load((dashboard.FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_INTERVAL_S}s", "evaluation_interval": f"{SCRAPE_INTERVAL_S}s"}
    config["rule_files"] = [str(dashboard.FOLDER / "alerts.yml")]
    for job in config["scrape_configs"]:
        assert job["static_configs"] == [{"targets": ["fashion-serve:8003"]}]
        job["static_configs"] = [{"targets": [place.settings.gateway_status.address]}]
    folder.mkdir(parents=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports.find(1)
    command = [
        program("prometheus"),
        *(f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        running = Prometheus(f"http://{HOST}:{port}")

        def ready() -> bool:
            with contextlib.suppress(QueryError):
                return bool(running.query(f"sum_over_time(up[1m]) >= {_MIN_SCRAPES}"))
            return False

        assert wait_until(ready, TIMEOUT), (folder / "prometheus.log").read_text()
        yield running
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def traffic(place: Place) -> Iterator[None]:
    """Sends requests of every kind to every model, valid and invalid ones, until the context ends."""
    over = threading.Event()
    thread = threading.Thread(target=_send, args=(place, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _send(place: Place, over: threading.Event) -> None:
    boot = (ROOT / "examples" / "ankle_boot.png").read_bytes()
    noise = np.random.default_rng(1).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": noise[0].ravel().tolist()}
    session = requests.Session()
    session.trust_env = False

    def post(model: str, **request: Any) -> None:
        # Requests may fail while a worker is lost; other tests cover that.
        with contextlib.suppress(requests.RequestException):
            session.post(f"{place.gateway}/predictions/{model}", timeout=10, **request)

    octets = {"Content-Type": "application/octet-stream"}
    while not over.is_set():
        for model in ("fashion_mlp", "fashion_convnet"):
            post(model, data=boot, headers={"Content-Type": "image/png"})
            post(model, data=noise.tobytes(), headers=octets)
            post(model, data=noise.tobytes(), headers=octets, params={"ood": "true"})
            post(model, json={"instances": [noise[0].tolist()]})
            post(model, json={"inputs": [tensor]})
            post(model, files={"image": boot})
            post(model, data=b"\x89PNG\r\n\x1a\nand no more", headers={"Content-Type": "image/png"})
            post(model, data=b"x" * 783, headers=octets)
            post(model, data=b"x", headers={"Content-Type": "application/zip"})
        post("blobs_mlp", json=[0.5, -1.5, 3.0, 2.0])
        post("sigmoid_net", json=[[0.1, 0.2, 0.3]] * 4)


def lose_worker(place: Place, model: str) -> None:
    """Kill a worker during a request, which fails by that, and wait until the next worker is ready."""

    def description() -> Any:
        return requests.get(f"{place.management}/models/{model}", timeout=TIMEOUT).json()[0]

    def worker() -> Any:
        return description()["workers"][0]

    pid = worker()["pid"]
    os.kill(pid, signal.SIGSTOP)
    # The first requests reach the stopped worker, in one batch, and a later one waits in the queue. They bypass the
    # gateway, which would retry them.
    senders: list[threading.Thread] = []

    def one_waits() -> bool:
        senders.append(threading.Thread(target=_predict, args=(place, model)))
        senders[-1].start()
        return bool(description()["jobQueueStatus"]["pendingRequests"] > 0)

    try:
        # Less than the time after which TorchServe replaces the worker.
        assert wait_until(one_waits, 10)
    finally:
        os.kill(pid, signal.SIGKILL)
        for thread in senders:
            thread.join(TIMEOUT)
    assert wait_until(lambda: worker()["status"] == "READY" and worker()["pid"] != pid, TIMEOUT)


def _predict(place: Place, model: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.post(f"{place.inference}/predictions/{model}", json=[0.5, -1.5, 3.0, 2.0], timeout=TIMEOUT)
