"""One service with one Prometheus, shared by the tests, after half a minute of traffic and the loss of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitoring.prometheus import Prometheus
from serving import settings
from serving.polling import wait_until
from tests.support import watched
from tests.support.place import Place, make_place

_LOSSES = 5


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Iterator[Place]:
    """The repository's archives, served; ``make archive`` must have built them."""
    place = make_place(tmp_path_factory.mktemp("service"), settings.read().model_store)
    place.start()
    yield place
    place.end()


@pytest.fixture(scope="session")
def prometheus(place, tmp_path_factory) -> Iterator[Prometheus]:
    """What has watched the service while it answered, failed and lost a worker; it goes on while tests run."""
    with watched.traffic(place), watched.prometheus(place, tmp_path_factory.mktemp("prometheus") / "run") as found:
        # A counter's first value is no increase, so it takes more than one failure to make a rate of failures.
        failures = f"rate(Requests5XX[{watched.INTERVAL}]) > 0"
        for _ in range(_LOSSES):
            watched.lose_worker(place, "blobs_mlp")
            if wait_until(lambda: bool(found.now(failures)), 2 * watched.SCRAPE):
                break
        else:
            pytest.fail(f"{_LOSSES} lost workers, and no failures: {found.now('Requests5XX')}")
        yield found
