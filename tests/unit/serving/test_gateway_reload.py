"""What changes in the gateway while it runs."""

from __future__ import annotations

import os

import pytest

from serving import settings
from serving.errors import RolloutError
from serving.gateway import reload
from serving.store.live import Canary, Live

TRYING = {"other": Live("1.0"), "tiny": Live("1.0", (), Canary("1.1", 12.5)), "wide": Live("2.0", (), Canary("3", 100))}


def test_each_canary_has_a_share_of_its_own():
    text = reload.render(TRYING, {})
    assert 'split_clients $request_id $drawn_0 { 12.50% "/1.1"; * ""; }' in text
    assert 'split_clients $request_id $drawn_1 { 100.00% "/3"; * ""; }' in text
    assert '"/tiny" $drawn_0;' in text
    assert '"/wide" $drawn_1;' in text
    assert "other" not in text
    assert "Authorization" not in text


def test_file_is_written_when_it_differs_and_for_its_owner_alone(tmp_path):
    path, text = tmp_path / "live" / "live.conf", reload.render(TRYING, {"Authorization": "Bearer secret"})
    assert reload.write(path, text)
    assert not reload.write(path, text)
    assert list(path.parent.iterdir()) == [path]
    assert (path.read_text(), path.stat().st_mode & 0o777) == (text, 0o600)


def test_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    reload.write(tmp_path / "live.conf", "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(RolloutError, match="No space left"):
        reload.write(tmp_path / "live.conf", "after")
    (path,) = tmp_path.iterdir()
    assert path.read_text() == "before"


def test_change_without_a_gateway_is_told(tmp_path):
    given = settings.read({"FASHION_RUN_DIR": str(tmp_path)})
    assert not reload.apply(given, TRYING)
    # What stands there already needs no gateway to take it up.
    assert reload.apply(given, TRYING)


def test_another_process_with_the_gateways_number_gets_no_signal(tmp_path):
    (tmp_path / "nginx.pid").write_text(str(os.getpid()))
    assert not reload.reload(tmp_path / "nginx.pid", wait=True)
