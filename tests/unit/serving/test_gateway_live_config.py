"""The part of the gateway's configuration that changes while it runs."""

from __future__ import annotations

import os

import pytest

from serving.errors import RolloutError
from serving.gateway import live_config
from serving.store.live import Canary, Live

STATE = {"other": Live("1.0"), "tiny": Live("1.0", (), Canary("1.1", 12.5)), "wide": Live("2.0", (), Canary("3", 100))}


def test_each_canary_has_a_share_of_its_own():
    text = live_config.render(STATE, (), {})
    assert 'split_clients $request_id $drawn_0 { 12.50% "/1.1"; * ""; }' in text
    assert 'split_clients $request_id $drawn_1 { 100.00% "/3"; * ""; }' in text
    assert '"/tiny" $drawn_0;' in text
    assert '"/wide" $drawn_1;' in text
    assert "other" not in text
    assert "Authorization" not in text


def test_models_that_are_registered_without_batches_are_listed():
    text = live_config.render({}, {"tiny", "wide"}, {})
    assert '    "alone tiny" -;\n    "alone wide" -;\n' in text


def test_the_file_is_written_only_when_its_text_changes_and_only_its_owner_can_read_it(tmp_path):
    path, text = tmp_path / "live" / "live.conf", live_config.render(STATE, (), {"Authorization": "Bearer secret"})
    assert live_config.write(path, text)
    assert not live_config.write(path, text)
    assert list(path.parent.iterdir()) == [path]
    assert (path.read_text(), path.stat().st_mode & 0o777) == (text, 0o600)


def test_a_file_that_cannot_be_written_keeps_its_content(tmp_path, monkeypatch):
    live_config.write(tmp_path / "live.conf", "before")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises(RolloutError, match="No space left"):
        live_config.write(tmp_path / "live.conf", "after")
    (path,) = tmp_path.iterdir()
    assert path.read_text() == "before"
