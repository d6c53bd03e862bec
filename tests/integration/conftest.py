"""Real services on free ports, with folders of their own.

``service`` serves the repository's trained models and is shared by all tests: leave it as it was. ``FASHION_URL``, such
as http://127.0.0.1:8000, names the gateway of one that runs already, which is used in its place. ``tiny_service``
serves one linear layer, is up sooner, and is shared too. ``place`` is a place to start a service of one's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from serving import settings
from serving.store import archives, index
from serving.store.archives import Archive
from tests.support import packing
from tests.support.gateways import Gateway
from tests.support.place import Elsewhere, Place, make_place


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[Place]:
    """The repository's archives, served; ``make archive`` must have built them."""
    if elsewhere := os.environ.get("FASHION_URL"):
        environment = {"FASHION_GATEWAY_PORT": str(urlsplit(elsewhere).port)}
        yield Elsewhere(environment, settings.read(environment))
        return
    place = make_place(tmp_path_factory.mktemp("service"), settings.read().model_store)
    place.start()
    yield place
    place.end()


@pytest.fixture(scope="session")
def served(service) -> list[Archive]:
    """The archives that ``service`` serves."""
    return [archives.read_listed(entry) for entry in index.read(service.settings.model_store, None)]


@pytest.fixture(scope="session")
def tiny_service(tmp_path_factory) -> Iterator[Place]:
    """One linear layer, served as the model ``tiny``."""
    folder = tmp_path_factory.mktemp("tiny")
    packing.pack(folder / "model_store")
    place = make_place(folder, folder / "model_store")
    place.start()
    yield place
    place.end()


@pytest.fixture(scope="session")
def gateway(service) -> Gateway:
    """The gateway of ``service``."""
    return Gateway(service.settings)


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """A place with an empty model store, where nothing runs; what a test leaves running is killed."""
    store = tmp_path / "model_store"
    store.mkdir()
    place = make_place(tmp_path, store)
    yield place
    place.end()
