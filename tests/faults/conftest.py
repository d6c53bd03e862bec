"""Fixtures: services under load, in which the tests cause faults (``tests/support/scenes.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import catalog
from tests.support import scenes
from tests.support.place import Place, make_place
from tests.support.scenes import Scene

# The response timeout of the catalog; the short form cannot wait that long for a hung worker.
RESPONSE_TIMEOUT_S = catalog.get(scenes.MODEL).serving.response_timeout_s if scenes.FULL else 3


def _pack(store: Path) -> Path:
    return scenes.variant(scenes.source(), store, responseTimeout=RESPONSE_TIMEOUT_S)


@pytest.fixture(autouse=True)
def _no_load_remains() -> Iterator[None]:
    """Kill the load of a failed test."""
    yield
    while scenes.started:
        scenes.started.pop().kill()


@pytest.fixture(scope="session")
def rate(tmp_path_factory) -> Callable[[Place, list[Path]], float]:
    """Half of the service's capacity, measured once; in the short form a rate that any machine can answer."""
    measured: list[float] = []

    def half(place: Place, archives: list[Path]) -> float:
        if not scenes.FULL:
            return scenes.SHORT_RATE
        if not measured:
            measured.append(scenes.capacity(place.gateway, archives, tmp_path_factory.mktemp("capacity")) / 2)
            scenes.keep("capacity", "", None, calls_a_second=round(measured[0] * 2))
        return measured[0]

    return half


@pytest.fixture
def prepared(tmp_path) -> Iterator[tuple[Place, Path]]:
    """A stopped service with one archive in its model store, and the path of the archive."""
    store = tmp_path / "model_store"
    archive = _pack(store)
    place = make_place(tmp_path, store)
    yield place, archive
    place.end()


@pytest.fixture
def scene(prepared, tmp_path, rate) -> Scene:
    """A running service for one test."""
    place, archive = prepared
    place.start()
    return Scene(place, [archive], tmp_path, rate(place, [archive]), RESPONSE_TIMEOUT_S)


@pytest.fixture(scope="module")
def shared_scene(request, tmp_path_factory, rate) -> Iterator[Scene]:
    """A running service for the tests of a module, each of which must leave it ready.

    The module may define further variables of the service as ``ENVIRONMENT``.
    """
    folder = tmp_path_factory.mktemp("scene")
    archive = _pack(folder / "model_store")
    place = make_place(folder, folder / "model_store", **getattr(request.module, "ENVIRONMENT", {}))
    place.start()
    yield Scene(place, [archive], folder, rate(place, [archive]), RESPONSE_TIMEOUT_S)
    place.end()
