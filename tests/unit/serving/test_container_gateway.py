"""The gateway's container takes up what changes while nginx starts."""

from __future__ import annotations

import os
import signal

import pytest

from serving import gateway, gateway_live, settings
from serving.containers import gateway as container


class _ReplacedError(Exception):
    """The process would be another program now, or gone."""


@pytest.fixture
def live(tmp_path, monkeypatch):
    """The file that rollouts write, of a container with the programs left out."""

    def end(*_):
        raise _ReplacedError

    given = settings.read({"FASHION_RUN_DIR": str(tmp_path)})
    monkeypatch.setattr(settings, "read", lambda: given)
    monkeypatch.setattr(os, "execv", end)
    monkeypatch.setattr(os, "_exit", end)
    # Both are what main changes in its own process.
    mask, ignored = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGQUIT)
    yield gateway.live_folder(given) / gateway_live.NAME
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGQUIT, ignored)


@pytest.mark.usefixtures("live")
def test_a_signal_waits_until_nginx_handles_it(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: 1)
    with pytest.raises(_ReplacedError):
        container.main()
    assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_change_after_nginx_has_read_is_told(live, monkeypatch):
    def fork() -> int:
        live.write_text("changed")
        return 0

    told = []
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(container, "watch", lambda path, seen, _: told.append((path, seen)))
    with pytest.raises(_ReplacedError):
        container.main()
    ((path, seen),) = told
    assert path == live
    assert seen != path.read_bytes()
