"""A release has one accepted version of each model, and nothing else."""

from __future__ import annotations

import pytest

from serving.errors import ArchiveError, RolloutError
from serving.rollout import release
from serving.store import archives, index
from tests.support import packing, signing_keys


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    for model, version in (("tiny", "1.0"), ("tiny", "1.1"), ("tiny", "1.10"), ("small", "1.0"), ("small", "1.1")):
        packing.pack(folder, model, version)
    return folder


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


def contents(folder):
    """The versions that a replica with this model store loads, and its files."""
    entries = index.read(folder, None)
    for entry in entries:
        archives.read_listed(entry)
    assert {path.name for path in folder.iterdir()} == {index.NAME, *(entry.path.name for entry in entries)}
    return {(entry.model, entry.version) for entry in entries}


def test_without_a_model_all_have_the_version(store, folder):
    release.write(store, None, folder, "1.1")
    assert contents(folder) == {("tiny", "1.1"), ("small", "1.1")}


def test_with_a_model_the_others_have_their_highest(store, folder):
    release.write(store, None, folder, "1.10", "tiny")
    assert contents(folder) == {("tiny", "1.10"), ("small", "1.1")}


@pytest.mark.parametrize(("version", "model"), [("1.10", None), ("2.0", "tiny"), ("1.0", "other")])
def test_a_version_that_is_not_packed_is_named(store, folder, version, model):
    name = model or "small"
    with pytest.raises(RolloutError, match=f"does not list {name} {version}; run: make archive MODEL={name}"):
        release.write(store, None, folder, version, model)


@pytest.mark.parametrize(
    ("options", "reason"), [({"accuracy": 0.4}, "requires 0.5"), ({"changes": {"golden.npz": None}}, "golden examples")]
)
def test_a_version_that_may_not_go_live_is_refused(store, folder, options, reason):
    packing.pack(store, "tiny", "2.0", **options)
    with pytest.raises(RolloutError, match=reason):
        release.write(store, None, folder, "2.0", "tiny")


def test_a_changed_archive_is_refused(store, folder):
    with next(store.glob("small*1.1*")).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArchiveError, match="not what was packed"):
        release.write(store, None, folder, "1.1")


def test_an_index_without_the_signature_is_refused(store, folder, tmp_path):
    signing_keys.write(tmp_path, "store")
    with pytest.raises(ArchiveError, match="is not signed"):
        release.write(store, tmp_path / "store.pub", folder, "1.1")
