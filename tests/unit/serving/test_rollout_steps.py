"""A rollout is undone if TorchServe, the list of live versions, or the gateway fails."""

from __future__ import annotations

import pytest

from serving.errors import RefusedError, RolloutError, StateError, UnreachableError
from serving.gateway import reload
from serving.rollout.steps import Rollout
from serving.settings import read as read_settings
from serving.store import live
from serving.store.live import Canary, Live
from serving.torchserve import golden_check, management
from serving.torchserve.management import Model, Worker
from tests.support import packing


class Registry:
    """A management API that keeps its versions in memory, and refuses the operations in ``refused``."""

    def __init__(self) -> None:
        self.versions = {"1.0"}
        self.default = "1.0"
        self.refused: set[str] = set()
        # The queue length of a version, for one call of ``describe`` after the other.
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
        self.versions.add(archive.version)

    def unbatched(self):
        return set()

    def set_default(self, _, version):
        self._do(f"set_default {version}")
        self.default = version

    def unregister(self, _, version):
        self._do("unregister")
        assert version != self.default
        assert self.queues.get(version, [0]) == [0], "the requests in its queue would be lost"
        self.versions.discard(version)

    def _do(self, what):
        if what in self.refused:
            raise RefusedError(f"{what} is refused")


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def shares():
    """The canaries that the gateway was reloaded with, in order."""
    return []


@pytest.fixture
def settings(tmp_path):
    return read_settings({"FASHION_RUN_DIR": str(tmp_path), "FASHION_MODEL_STORE": str(tmp_path / "store")})


@pytest.fixture
def change(settings, registry, shares, monkeypatch):
    """A function that returns a new rollout."""
    monkeypatch.setattr(golden_check, "run", lambda *_: None)
    monkeypatch.setattr(management, "of_service", lambda _: registry)
    monkeypatch.setattr(reload, "apply", lambda _, state, _unbatched: not shares.append(state["tiny"].canary))
    packing.pack(settings.model_store)
    packing.pack(settings.model_store, version="1.1")
    live.write(settings.run, {"tiny": Live("1.0")})
    return lambda grace=0: Rollout(settings, "tiny", grace, lambda _: None)


def _holds(settings, registry, version, canary=None):
    state = live.read(settings.run)["tiny"]
    assert (state.version, state.canary, registry.default) == (version, canary, version)
    assert registry.versions == set(state.versions)


@pytest.mark.parametrize("step", ["register", "set_default 1.1"])
def test_refused_step_leaves_the_live_version(change, settings, registry, step):
    registry.refused = {step}
    with pytest.raises(RefusedError, match=step):
        change().deploy("1.1")
    _holds(settings, registry, "1.0")


def test_requests_of_a_switch_that_failed_late_are_answered(change, settings, registry, monkeypatch):
    switch = registry.set_default

    def late(model, version):
        switch(model, version)
        if version == "1.1":
            # These requests arrived before the switch was undone.
            registry.queues = {"1.1": [3, 2, 1, 0]}
            raise UnreachableError("no answer in time")

    monkeypatch.setattr(registry, "set_default", late)
    with pytest.raises(UnreachableError):
        change(grace=0.5).deploy("1.1")
    _holds(settings, registry, "1.0")


def test_state_that_cannot_be_written_leaves_the_live_version(change, settings, registry, monkeypatch):
    def full(*_):
        raise StateError("no space")

    monkeypatch.setattr(live, "write", full)
    with pytest.raises(StateError):
        change().deploy("1.1")
    _holds(settings, registry, "1.0")


def test_old_version_that_cannot_be_unregistered_is_an_error_after_the_switch(change, settings, registry):
    registry.refused = {"unregister"}
    with pytest.raises(RolloutError, match=r"done, but tiny 1\.0, which gets no more requests, was not unregistered"):
        change().deploy("1.1")
    assert live.read(settings.run)["tiny"] == Live("1.1", ("1.0",))
    assert registry.default == "1.1"


def test_failed_reload_leaves_no_canary(change, settings, registry, monkeypatch):
    def refuse(_, state, _unbatched):
        if state["tiny"].canary:
            raise RolloutError("nginx failed")
        return True

    monkeypatch.setattr(reload, "apply", refuse)
    with pytest.raises(RolloutError, match="nginx failed"):
        change().canary("1.1", 10)
    _holds(settings, registry, "1.0")


def test_failed_abort_leaves_the_canary(change, settings, registry, monkeypatch):
    change().canary("1.1", 10)

    def refuse(_, state, _unbatched):
        if not state["tiny"].canary:
            raise RolloutError("nginx failed")
        return True

    monkeypatch.setattr(reload, "apply", refuse)
    with pytest.raises(RolloutError, match="nginx failed"):
        change().abort()
    _holds(settings, registry, "1.0", Canary("1.1", 10))


def test_failed_promotion_leaves_the_canary(change, settings, registry):
    change().canary("1.1", 10)
    registry.refused = {"set_default 1.1"}
    with pytest.raises(RefusedError):
        change().promote()
    _holds(settings, registry, "1.0", Canary("1.1", 10))


def test_the_gateway_gets_the_shares_in_the_order_of_the_commands(change, settings, registry, shares):
    change().canary("1.1", 10)
    change().canary("1.1", 50)
    change().promote()
    assert shares == [Canary("1.1", 10), Canary("1.1", 50), None]
    _holds(settings, registry, "1.1")
