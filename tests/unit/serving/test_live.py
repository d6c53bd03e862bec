"""The list of live versions: read, written, compared with the index."""

from __future__ import annotations

import pytest

from serving.errors import ArchiveError, StateError
from serving.store import index, live
from serving.store.live import Canary, Live
from tests.support import packing

STATE = {"tiny": Live("1.1", ("1.0", "0.9"), Canary("1.2", 12.5)), "other": Live("2.0")}


def test_state_is_read_as_it_was_written(tmp_path):
    assert live.read(tmp_path) == {}
    live.write(tmp_path / "run", STATE)
    assert live.read(tmp_path / "run") == STATE
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["live.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tiny": {}}', '{"tiny": {"version": "1", "previous": 3}}'])
def test_invalid_state_is_an_error(tmp_path, text):
    (tmp_path / "live.json").write_text(text)
    with pytest.raises(StateError, match="restore a backup"):
        live.read(tmp_path)


def test_failed_write_leaves_the_old_state(tmp_path, monkeypatch):
    live.write(tmp_path, STATE)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateError, match="No space left"):
        live.write(tmp_path, {})
    assert live.read(tmp_path) == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["live.json"]


def test_new_version_keeps_the_previous_versions():
    state = Live("1.0").followed_by("1.1").followed_by("1.2")
    assert (state.version, state.previous) == ("1.2", ("1.1", "1.0"))
    assert state.followed_by("1.1").previous == ("1.2", "1.0")
    for version in range(50):
        state = state.followed_by(str(version))
    assert len(state.previous) == 10


@pytest.fixture
def listed(tmp_path):
    for version in ("1.9", "1.10", "1.0"):
        packing.pack(tmp_path, "tiny", version)
    packing.pack(tmp_path, "other")
    return index.read(tmp_path, None)


def _settled(state, listed):
    settled, chosen = live.settle(state, listed)
    return settled, [(entry.model, entry.version) for entry in chosen]


def test_first_start_takes_the_highest_versions(listed):
    settled, chosen = _settled({}, listed)
    assert settled == {"tiny": Live("1.10"), "other": Live("1.0")}
    assert chosen == [("other", "1.0"), ("tiny", "1.10")]


def test_missing_archive_of_a_version_that_is_not_live_is_skipped(listed):
    for entry in listed:
        if (entry.model, entry.version) in (("tiny", "1.10"), ("other", "1.0")):
            entry.path.unlink()
    assert _settled({}, listed)[1] == [("tiny", "1.9")]
    for entry in listed:
        entry.path.unlink(missing_ok=True)
    with pytest.raises(ArchiveError, match="run: make archive"):
        live.settle({}, listed)


def test_live_versions_are_loaded_default_first(listed):
    state = {"tiny": Live("1.9", ("1.0",), Canary("1.0", 5))}
    settled, chosen = _settled(state, listed)
    assert settled == {**state, "other": Live("1.0")}
    assert chosen == [("other", "1.0"), ("tiny", "1.9"), ("tiny", "1.0")]


@pytest.mark.parametrize("state", [Live("3.0"), Live("1.0", (), Canary("3.0", 5))], ids=["default", "canary"])
def test_live_version_without_archive_is_an_error(listed, state):
    with pytest.raises(ArchiveError, match=r"make archive MODEL=tiny VERSION=3\.0"):
        live.settle({"tiny": state}, listed)
