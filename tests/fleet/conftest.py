"""A fleet of three replicas on a swarm of three engines; all tests share it, and each gets it as it was at first."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.settings import ROOT
from tests.fleet import versions
from tests.fleet.swarm import fleet
from tests.fleet.swarm.lab import Lab
from tests.support import scenes
from tests.support.composing import IMAGE, run


def _build(image: str, context: Path, *options: str) -> str:
    run("docker", "build", "--quiet", "--tag", image, *options, str(context))
    return image


def _bake(version: str, store: Path) -> str:
    lines = [f"FROM {IMAGE}", "COPY index.json *.mar /models/"]
    if version == versions.NEVER_READY:
        # So that the replica ends sooner.
        lines.append("ENV FASHION_START_TIMEOUT=20")
    (store / "Dockerfile").write_text("\n".join(lines) + "\n")
    return _build(fleet.image(version), store)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The fleet, ready."""
    lab = Lab()
    folder = tmp_path_factory.mktemp("fleet")
    stores = versions.make(folder / "stores")
    images = [_bake(version, store) for version, store in stores.items()]
    images.append(_build(fleet.EDGE, ROOT, "--target", "edge", "--file", "docker/Dockerfile"))
    images.append(_build(f"{fleet.REGISTRY}/prometheus:test", Path(__file__).parent / "prometheus"))
    lab.do("down")
    try:
        lab.up()
        lab.do("load", *images)
        swarm = fleet.Fleet(lab, folder, stores)
        swarm.create()
        yield swarm
    finally:
        lab.do("down")


@pytest.fixture
def swarm(shared):
    """The fleet with three replicas of 1.0; after the test it is restored."""
    yield shared
    # The load of a failed test.
    while scenes.started:
        scenes.started.pop().kill()
    shared.restore()
