"""What a rollout undoes when TorchServe, the state's file or the gateway fails in the middle."""

from __future__ import annotations

import pytest

from serving import settings
from serving.errors import RefusedError, RolloutError, StateError, UnreachableError
from serving.gateway import reload
from serving.rollout.steps import Rollout
from serving.store import live
from serving.store.live import Canary, Live
from serving.torchserve import management, readiness
from serving.torchserve.management import Model, Worker
from tests.support import packing


class Registry:
    """The management API of a TorchServe that registers in memory, and refuses what ``refused`` names."""

    def __init__(self) -> None:
        self.versions = {"1.0"}
        self.default = "1.0"
        self.refused: set[str] = set()
        # Of a version: the requests in its queue, look by look.
        self.queues: dict[str, list[int]] = {}

    def describe(self, name, version=None):
        version = version or self.default
        if version not in self.versions:
            return None
        queued = self.queues.get(version, [0])
        waiting = queued.pop(0) if len(queued) > 1 else queued[0]
        return Model(name, version, 1, waiting, 100, (Worker("9000", 1, True, False),))

    def register(self, archive):
        self._do("register")
        self.versions.add(archive.removesuffix(".mar").partition("-")[2])

    def set_default(self, _, version):
        self._do(f"set_default {version}")
        self.default = version

    def unregister(self, _, version):
        self._do("unregister")
        assert version != self.default
        assert self.queues.get(version, [0]) == [0], "what is in its queue would be lost"
        self.versions.discard(version)

    def _do(self, what):
        if what in self.refused:
            raise RefusedError(f"{what} is refused")


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def shares():
    """What the gateway was told, in order."""
    return []


@pytest.fixture
def given(tmp_path):
    return settings.read({"FASHION_RUN_DIR": str(tmp_path), "FASHION_MODEL_STORE": str(tmp_path / "store")})


@pytest.fixture
def change(given, registry, shares, monkeypatch):
    """Makes the next rollout."""
    monkeypatch.setattr(readiness, "golden_check", lambda *_: None)
    monkeypatch.setattr(management, "of_service", lambda _: registry)
    monkeypatch.setattr(reload, "apply", lambda _, state: not shares.append(state["tiny"].canary))
    packing.pack(given.model_store)
    packing.pack(given.model_store, version="1.1")
    live.write(given.run, {"tiny": Live("1.0")})
    return lambda grace=0: Rollout(given, "tiny", grace, lambda _: None)


def _holds(given, registry, version, canary=None):
    state = live.read(given.run)["tiny"]
    assert (state.version, state.canary, registry.default) == (version, canary, version)
    assert registry.versions == set(state.versions)


@pytest.mark.parametrize("step", ["register", "set_default 1.1"])
def test_refused_step_leaves_the_live_version(change, given, registry, step):
    registry.refused = {step}
    with pytest.raises(RefusedError, match=step):
        change().deploy("1.1")
    _holds(given, registry, "1.0")


def test_switch_that_is_refused_late_loses_no_request_that_it_has_brought(change, given, registry, monkeypatch):
    switch = registry.set_default

    def late(model, version):
        switch(model, version)
        if version == "1.1":
            # Requests came before the switch was taken back.
            registry.queues = {"1.1": [3, 2, 1, 0]}
            raise UnreachableError("no answer in time")

    monkeypatch.setattr(registry, "set_default", late)
    with pytest.raises(UnreachableError):
        change(grace=0.5).deploy("1.1")
    _holds(given, registry, "1.0")


def test_state_that_cannot_be_written_leaves_the_live_version(change, given, registry, monkeypatch):
    def full(*_):
        raise StateError("no space")

    monkeypatch.setattr(live, "write", full)
    with pytest.raises(StateError):
        change().deploy("1.1")
    _holds(given, registry, "1.0")


def test_old_version_that_stays_is_told_after_the_switch(change, given, registry):
    registry.refused = {"unregister"}
    with pytest.raises(RolloutError, match=r"done, but tiny 1\.0, which nobody asks any more, still runs"):
        change().deploy("1.1")
    assert live.read(given.run)["tiny"] == Live("1.1", ("1.0",))
    assert registry.default == "1.1"


def test_share_that_the_gateway_refuses_leaves_no_canary(change, given, registry, monkeypatch):
    def refuse(_, state):
        if state["tiny"].canary:
            raise RolloutError("nginx did not")
        return True

    monkeypatch.setattr(reload, "apply", refuse)
    with pytest.raises(RolloutError, match="nginx did not"):
        change().canary("1.1", 10)
    _holds(given, registry, "1.0")


def test_split_that_cannot_be_ended_leaves_the_canary(change, given, registry, monkeypatch):
    change().canary("1.1", 10)

    def refuse(_, state):
        if not state["tiny"].canary:
            raise RolloutError("nginx did not")
        return True

    monkeypatch.setattr(reload, "apply", refuse)
    with pytest.raises(RolloutError, match="nginx did not"):
        change().abort()
    _holds(given, registry, "1.0", Canary("1.1", 10))


def test_promotion_that_is_refused_leaves_the_canary(change, given, registry):
    change().canary("1.1", 10)
    registry.refused = {"set_default 1.1"}
    with pytest.raises(RefusedError):
        change().promote()
    _holds(given, registry, "1.0", Canary("1.1", 10))


def test_the_gateway_is_told_in_the_right_order(change, given, registry, shares):
    change().canary("1.1", 10)
    change().canary("1.1", 50)
    change().promote()
    assert shares == [Canary("1.1", 10), Canary("1.1", 50), None]
    _holds(given, registry, "1.1")
