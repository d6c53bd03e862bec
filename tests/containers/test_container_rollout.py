"""Rollouts in the container lose no request, and the live versions survive a restart."""

from __future__ import annotations

import json

import pytest

from tests.support import free_ports, packing
from tests.support.callers import Callers
from tests.support.composing import Stack, wait_until


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    """A separate service with tokens, with ``tiny`` 1.0 live and 1.1 in its model store."""
    store = tmp_path_factory.mktemp("rollout") / "store"
    packing.pack(store)
    # The container's user must be able to read it.
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


def test_deployments_and_canaries_lose_no_request(rolled):
    with Callers(rolled.url) as callers:
        assert _roll(rolled, "deploy", "tiny", "1.1", "--grace", "1") == "tiny 1.1 is live"
        assert _roll(rolled, "rollback", "tiny", "--grace", "1") == "tiny 1.0 is live"
        _roll(rolled, "canary", "tiny", "1.1", "--percent", "50")
        before = callers.versions.copy()
        wait_until(lambda: len(callers.versions - before) == 2, 30, "both versions answer")
        assert _roll(rolled, "promote", "tiny", "--grace", "1") == "tiny 1.1 is live"
        _roll(rolled, "canary", "tiny", "1.0", "--percent", "20")
        assert _roll(rolled, "abort", "tiny") == "tiny 1.0 is no longer a canary"
    assert callers.failures == []
    assert callers.versions.keys() == {"1.0", "1.1"}


def test_the_live_version_survives_a_restart_of_the_container(rolled):
    live = json.loads(rolled.inside("cat /state/live.json"))["tiny"]["version"]
    keys = rolled.inside("cat /state/key_file.json")
    rolled.compose("restart")
    wait_until(rolled.is_ready, 60, "ready again")
    with Callers(rolled.url) as callers:
        pass
    assert (set(callers.versions), callers.failures) == ({live}, [])
    assert rolled.inside("cat /state/key_file.json") != keys
    assert rolled.inside("stat -c %a /state/key_file.json") == "600\n"
