"""What all metrics cost: requests a second with them, beside the same service without any.

    python -m bench.metrics        needs the archives (make archive), nginx and wrk; takes about two minutes

Two services run side by side on free ports: one as it always is, scraped once in each round, and one whose workers
count nothing and whose frontend has no metric configured. Both are loaded in turn, the first one second in every other
round, so that they see the same machine; figures are medians of the rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import requests

from bench import reporting, wrk
from models.datasets import fashion_mnist
from serving import jvm, service, settings
from serving.errors import ServingError
from serving.settings import Settings
from tests import ports

MODEL = "fashion_mlp"
CONNECTIONS = 64
ROUNDS = 9
SECONDS = 4
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


@contextlib.contextmanager
def _running(given: Settings) -> Iterator[None]:
    service.start(given, lambda said: print(said, file=sys.stderr))
    try:
        yield
    finally:
        service.stop(given)


@contextlib.contextmanager
def _without_metrics(folder: Path) -> Iterator[None]:
    """What is started meanwhile counts nothing."""
    config = folder / "no-metrics.yaml"
    config.write_text(_NO_METRICS)
    with (
        mock.patch.object(jvm, "METRICS_CONFIG", config),
        mock.patch.object(service, "COUNTS_VARIABLE", "FASHION_NOT_COUNTED"),
    ):
        yield


def _scrape(given: Settings) -> None:
    for port in (given.frontdoor, given.metrics):
        requests.get(f"{port.url}/metrics", timeout=10).raise_for_status()


def _measure(watched: Settings, unwatched: Settings) -> dict[str, list[wrk.Load]]:
    body = fashion_mnist().test_inputs[0].numpy().tobytes()
    found: dict[str, list[wrk.Load]] = {"with": [], "without": []}
    order = [("with", watched), ("without", unwatched)]
    for turn in range(ROUNDS + 1):
        order.reverse()
        for name, given in order:
            print(f"\rround {turn}/{ROUNDS} {name:<8}", end="", file=sys.stderr)
            # In the middle of the round; a Prometheus would come three times less often.
            scrape = threading.Timer(SECONDS / 2, _scrape, (given,))
            if name == "with":
                scrape.start()
            load = wrk.run(f"{given.inference.url}/predictions/{MODEL}", CONNECTIONS, SECONDS, body, HEADERS)
            scrape.cancel()
            # The first round warms up.
            if turn:
                found[name].append(load)
    print(file=sys.stderr)
    return found


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            watched, unwatched = _places(Path(folder))
            stack.enter_context(_running(watched))
            with _without_metrics(Path(folder)):
                stack.enter_context(_running(unwatched))
            found = _measure(watched, unwatched)
    except (ServingError, wrk.LoadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rates = {name: [load.rate for load in loads] for name, loads in found.items()}
    medians = {name: statistics.median(each) for name, each in rates.items()}
    cost = 1 - medians["with"] / medians["without"]
    pairs = [1 - one / other for one, other in zip(rates["with"], rates["without"], strict=True)]
    results = {
        f"c={CONNECTIONS}": {
            "requests_per_second": rates,
            "p99_ms": {name: [load.p99 for load in loads] for name, loads in found.items()},
            "failed": sum(load.failed for loads in found.values() for load in loads),
            "cost_by_medians": cost,
            "cost_by_pairs_median": statistics.median(pairs),
        }
    }
    rows = [
        [
            *(name, f"{medians[name]:,.0f}", f"{min(rates[name]):,.0f}-{max(rates[name]):,.0f}"),
            f"{statistics.median(load.p99 for load in loads):.2f}",
        ]
        for name, loads in found.items()
    ]
    rows.append(["cost", f"{cost:.1%}", f"{statistics.median(pairs):.1%} by pairs", ""])
    print(reporting.table(["metrics", "requests/s", "range", "p99 ms"], rows))
    print(f"→ {reporting.write('metrics', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
