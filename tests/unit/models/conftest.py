"""Artifacts of a test's own, so that no test touches what `make train` made."""

import dataclasses
import io

import pytest
from rich.console import Console

from models import artifacts
from models.building import build, quick
from models.catalog import CATALOG


@pytest.fixture
def artifacts_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ARTIFACTS_DIR", tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture
def silent():
    return Console(file=io.StringIO())


@pytest.fixture
def short_training():
    """Settings of seconds for a small model."""
    return dataclasses.replace(quick(CATALOG["blobs_mlp"].training), epochs=4)


@pytest.fixture
def blobs_artifact(artifacts_dir, silent, short_training):
    """A trained ``blobs_mlp`` 1.0; gives its folder."""
    build(CATALOG["blobs_mlp"], "1.0", short_training, 0, silent)
    return artifacts_dir / "blobs_mlp" / "1.0"
