"""A fleet of three replicas on each engine; all tests of an engine share it, and each gets it as it was at first."""

from __future__ import annotations

import pytest

from tests.fleet import images, versions
from tests.fleet.kubernetes import fleet as kubernetes
from tests.fleet.swarm import fleet as swarm
from tests.support import scenes

ENGINES = {"swarm": swarm.running, "kubernetes": kubernetes.running}


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """The model stores of all versions, which are baked into images."""
    made = versions.make(tmp_path_factory.mktemp("stores"))
    images.bake(made)
    return made


@pytest.fixture(scope="session", params=list(ENGINES))
def engine(request, tmp_path_factory):
    """The fleet of an engine, ready."""
    folder = tmp_path_factory.mktemp(request.param)
    # Images are built after the lab's prerequisites were checked, and while it starts.
    with ENGINES[request.param](folder, lambda: request.getfixturevalue("stores")) as fleet:
        yield fleet


@pytest.fixture
def fleet(engine):
    """The fleet with three replicas of 1.0; after the test it is restored."""
    yield engine
    # The load of a failed test.
    while scenes.started:
        scenes.started.pop().kill()
    engine.restore()
