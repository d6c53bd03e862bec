"""Artifacts in temporary folders, so that no test touches the ones of `make train`."""

import dataclasses
import io
import shutil

import pytest
from rich.console import Console

from models import artifacts
from models.building import build, quick
from models.catalog import CATALOG

# Trains a small model in seconds.
SHORT = dataclasses.replace(quick(CATALOG["blobs_mlp"].training), epochs=4)


@pytest.fixture
def artifacts_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ARTIFACTS_DIR", tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture
def silent():
    return Console(file=io.StringIO())


@pytest.fixture
def short_training():
    return SHORT


@pytest.fixture(scope="session")
def _built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "ARTIFACTS_DIR", folder)
        build(CATALOG["blobs_mlp"], "1.0", SHORT, 0, Console(file=io.StringIO()))
    return folder


@pytest.fixture
def blobs_artifact(_built, artifacts_dir):
    """The folder of a trained ``blobs_mlp`` 1.0."""
    shutil.copytree(_built, artifacts_dir)
    return artifacts_dir / "blobs_mlp" / "1.0"
