"""Versions go live in the container with no request lost, and stay live."""

from __future__ import annotations

import json

import pytest

from tests.support import free_ports, packing
from tests.support.callers import Callers
from tests.support.composing import Stack, wait_until


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    """A service of its own that asks for tokens, with ``tiny`` 1.0 live, and 1.1 in its model store."""
    store = tmp_path_factory.mktemp("rollout") / "store"
    packing.pack(store)
    # Its reader is the container's user.
    store.chmod(0o755)
    stack = Stack("fashion-serve-rollout", *free_ports.find(2))
    stack.down()
    try:
        stack.up(FASHION_MODEL_STORE=str(store), FASHION_TOKENS="1")
        packing.pack(store, version="1.1")
        yield stack
    finally:
        stack.down()


def _roll(stack: Stack, *command: str) -> str:
    return stack.compose("exec", "fashion-serve", "python", "-m", "serving", *command).splitlines()[-1]


def test_versions_go_live_and_on_trial_with_no_request_lost(rolled):
    with Callers(rolled.url) as asking:
        assert _roll(rolled, "deploy", "tiny", "1.1", "--grace", "1") == "tiny 1.1 is live"
        assert _roll(rolled, "rollback", "tiny", "--grace", "1") == "tiny 1.0 is live"
        _roll(rolled, "canary", "tiny", "1.1", "--percent", "50")
        before = asking.versions.copy()
        wait_until(lambda: len(asking.versions - before) == 2, 30, "both versions answer")
        assert _roll(rolled, "promote", "tiny", "--grace", "1") == "tiny 1.1 is live"
        _roll(rolled, "canary", "tiny", "1.0", "--percent", "20")
        assert _roll(rolled, "abort", "tiny") == "tiny 1.0 is no longer a canary"
    assert asking.failures == []
    assert asking.versions.keys() == {"1.0", "1.1"}


def test_what_is_live_survives_a_restart_of_the_container(rolled):
    live = json.loads(rolled.inside("cat /state/live.json"))["tiny"]["version"]
    keys = rolled.inside("cat /state/key_file.json")
    rolled.compose("restart")
    wait_until(rolled.is_ready, 60, "ready again")
    with Callers(rolled.url) as asking:
        pass
    assert (set(asking.versions), asking.failures) == ({live}, [])
    assert rolled.inside("cat /state/key_file.json") != keys
    assert rolled.inside("stat -c %a /state/key_file.json") == "600\n"
