"""What all metrics cost: requests a second and processor time with them, beside the same service without any.

    python -m bench.metrics        needs the archives (make archive), nginx and wrk; takes two to three minutes

Two services run side by side on free ports: one as it always is, scraped once in each round, and one whose workers
count nothing, whose frontend has no metric configured and whose gateway writes no lines to be counted. Both are loaded
in turn, the first one second in every other round, so that they see the same machine, at TorchServe's port and at the
gateway's. Rounds are short, and the cost is the median of the ratios of two that follow each other, so that other work
on the machine disturbs both or few. Processor time is that of all processes of the service: workers, frontend, nginx.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import requests

from bench import reporting, wrk
from models.datasets import fashion_mnist
from serving import gateway, jvm, service, settings
from serving.errors import ServingError
from serving.settings import Settings
from tests import ports

MODEL = "fashion_mlp"
CONNECTIONS = 64
ROUNDS = 30
SECONDS = 1
# Until Java has compiled what runs often.
WARM_UP = 15
HEADERS = {"Content-Type": "application/octet-stream"}

# TorchServe's workers do not start without a metric of their own, of which the handler lets none be written.
_NO_METRICS = "model_metrics: {gauge: [{name: PredictionTime, unit: ms, dimensions: [ModelName, Level]}]}\n"


def _places(folder: Path) -> tuple[Settings, Settings]:
    """Two services' settings: free ports, and folders of their own."""
    given = settings.read()
    numbers = iter(ports.free(2 * len(given.ports)))
    names = [field.name for field in dataclasses.fields(given) if isinstance(getattr(given, field.name), settings.Port)]

    def place(name: str) -> Settings:
        moved = {each: dataclasses.replace(getattr(given, each), number=next(numbers)) for each in names}
        root = folder / name
        return dataclasses.replace(given, **moved, run=root / "run", logs=root / "logs", counts=root / "counts")

    return place("with"), place("without")


@dataclasses.dataclass(frozen=True)
class Round:
    """One round of load.

    Attributes:
        load: what wrk saw.
        microseconds: processor time of the service for each request.
    """

    load: wrk.Load
    microseconds: float


@contextlib.contextmanager
def _running(given: Settings) -> Iterator[list[int]]:
    """The service, and the numbers of the processes that it consists of, without those that these have started."""
    state, _ = service.start(given, lambda said: print(said, file=sys.stderr))
    try:
        yield [process.pid for process in state.processes]
    finally:
        service.stop(given)


@contextlib.contextmanager
def _without_metrics(folder: Path) -> Iterator[None]:
    """What is started meanwhile counts nothing."""
    config = folder / "no-metrics.yaml"
    config.write_text(_NO_METRICS)
    templates = shutil.copytree(gateway.TEMPLATES, folder / "nginx")
    routes = templates / "routes.conf.template"
    text, found = re.subn(r"^ *access_log .*ANSWERS.*$", "", routes.read_text(), flags=re.MULTILINE)
    assert found == 1, routes
    routes.write_text(text)
    with (
        mock.patch.object(jvm, "METRICS_CONFIG", config),
        mock.patch.object(gateway, "TEMPLATES", templates),
        mock.patch.object(service, "COUNTS_VARIABLE", "FASHION_NOT_COUNTED"),
    ):
        yield


def _processor_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def _scrape(given: Settings) -> None:
    for port in (given.frontdoor, given.metrics):
        requests.get(f"{port.url}/metrics", timeout=10).raise_for_status()


def _round(given: Settings, pids: list[int], url: str, body: bytes, scraped: bool) -> Round:
    # In the middle of the round; a Prometheus comes every fifteenth.
    scrape = threading.Timer(SECONDS / 2, _scrape, (given,))
    if scraped:
        scrape.start()
    before = _processor_seconds(pids)
    load = wrk.run(f"{url}/predictions/{MODEL}", CONNECTIONS, SECONDS, body, HEADERS)
    spent = _processor_seconds(pids) - before
    scrape.cancel()
    return Round(load, spent / (load.rate * SECONDS) * 1e6)


def _figures(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: {
            "requests_per_second": [each.load.rate for each in found],
            "microseconds_per_request": [each.microseconds for each in found],
            "p99_ms": statistics.median(each.load.p99 for each in found),
            "failed": sum(each.load.failed for each in found),
        }
        for name, found in rounds.items()
    }
    with_, without = figures["with"], figures["without"]
    for name in ("requests_per_second", "microseconds_per_request"):
        ratios = [one / other for one, other in zip(with_[name], without[name], strict=True)]
        figures[f"{name}_ratio"] = statistics.quantiles(ratios, n=4)
    return figures


def _measure(watched: Settings, watched_pids: list[int], bare: Settings, bare_pids: list[int]) -> dict[str, Any]:
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    results = {}
    for way in ("inference", "gateway"):
        found: dict[str, list[Round]] = {"with": [], "without": []}
        order = [("with", watched, watched_pids), ("without", bare, bare_pids)]
        for turn in range(1 - WARM_UP, ROUNDS + 1):
            order.reverse()
            for name, given, pids in order:
                print(f"\r{way} round {turn}/{ROUNDS} {name:<8}", end="", file=sys.stderr)
                url = getattr(given, way).url
                each = _round(given, pids, url, body, scraped=name == "with")
                if turn > 0:
                    found[name].append(each)
        results[way] = _figures(found)
    print(file=sys.stderr)
    return results


def _rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for way, figures in results.items():
        for name in ("with", "without"):
            rates, spent = (figures[name][key] for key in ("requests_per_second", "microseconds_per_request"))
            rows.append(
                [
                    *(way, name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}-{max(rates):,.0f}"),
                    *(f"{statistics.median(spent):.1f}", f"{figures[name]['p99_ms']:.1f}"),
                ]
            )
        lost = 1 - figures["requests_per_second_ratio"][1]
        low, more, high = (ratio - 1 for ratio in figures["microseconds_per_request_ratio"])
        rows.append([way, "cost", f"{lost:.1%}", "", f"{more:.1%} (half of the pairs: {low:.0%} to {high:.0%})", ""])
    return rows


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            watched, bare = _places(Path(folder))
            watched_pids = stack.enter_context(_running(watched))
            with _without_metrics(Path(folder)):
                bare_pids = stack.enter_context(_running(bare))
            results = _measure(watched, watched_pids, bare, bare_pids)
    except (ServingError, wrk.LoadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    titles = ["at", "metrics", "requests/s", "range", "processor µs a request", "p99 ms"]
    print(reporting.table(titles, _rows(results)))
    print(f"→ {reporting.write('metrics', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
