"""Services to try faults on; see ``scenes``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import catalog
from tests.support import scenes
from tests.support.place import Place, make_place
from tests.support.scenes import Scene

# Seconds: the catalog's, or few where a test has no time for that.
TIMEOUT = catalog.get(scenes.MODEL).serving.response_timeout_s if scenes.FULL else 3


def _pack(store: Path) -> Path:
    return scenes.variant(scenes.source(), store, responseTimeout=TIMEOUT)


@pytest.fixture(autouse=True)
def _loads_end() -> Iterator[None]:
    """A test that fails must not leave its load behind."""
    yield
    while scenes.begun:
        scenes.begun.pop().kill()


@pytest.fixture(scope="session")
def rate(tmp_path_factory) -> Callable[[Place, list[Path]], float]:
    """Half of what a service answers, measured once; in the short form a number that any machine reaches."""
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
    """A place with the model in its store, where nothing runs, and the archive; it is stopped in the end."""
    store = tmp_path / "model_store"
    archive = _pack(store)
    place = make_place(tmp_path, store)
    yield place, archive
    place.end()


@pytest.fixture
def scene(prepared, tmp_path, rate) -> Scene:
    """A service of its own for one test."""
    place, archive = prepared
    place.start()
    return Scene(place, [archive], tmp_path, rate(place, [archive]), TIMEOUT)


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory, rate) -> Iterator[Scene]:
    """A service for a module's tests, each of which leaves it as it was."""
    folder = tmp_path_factory.mktemp("scene")
    archive = _pack(folder / "model_store")
    place = make_place(folder, folder / "model_store")
    place.start()
    yield Scene(place, [archive], folder, rate(place, [archive]), TIMEOUT)
    place.end()
