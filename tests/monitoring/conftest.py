"""A service and a Prometheus, shared by the tests, after half a minute of traffic and the loss of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitoring.prometheus import Prometheus
from serving import settings
from serving.polling import wait_until
from tests.support import watched
from tests.support.place import Place, make_place

_MAX_LOST_WORKERS = 5


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Iterator[Place]:
    """The repository's archives, served; ``make archive`` must have built them."""
    place = make_place(tmp_path_factory.mktemp("service"), settings.read().model_store)
    place.start()
    yield place
    place.end()


@pytest.fixture(scope="session")
def prometheus(place, tmp_path_factory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the service under traffic and failures, and still scrapes it during the tests."""
    with watched.traffic(place), watched.prometheus(place, tmp_path_factory.mktemp("prometheus") / "run") as running:
        # A counter's first value has no rate, so a rate of failures needs more than one failure.
        failures = f"rate(Requests5XX[{watched.INTERVAL}]) > 0"
        for _ in range(_MAX_LOST_WORKERS):
            watched.lose_worker(place, "blobs_mlp")
            if wait_until(lambda: bool(running.query(failures)), 2 * watched.SCRAPE_INTERVAL_S):
                break
        else:
            pytest.fail(f"{_MAX_LOST_WORKERS} lost workers caused no failures: {running.query('Requests5XX')}")
        yield running
