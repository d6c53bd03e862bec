"""What a rollout undoes when TorchServe, the state's file or the gateway fails in the middle."""

from __future__ import annotations

import dataclasses

import pytest

from serving import live, readiness, rollout, tokens
from serving.errors import RefusedError, RolloutError, StateError
from serving.live import Canary, Live
from serving.management import Model, Worker
from serving.rollout import Target
from tests import packing


class Registry:
    """The management API of a TorchServe that registers in memory, and refuses what ``refused`` names."""

    def __init__(self) -> None:
        self.versions = {"1.0"}
        self.default = "1.0"
        self.refused: set[str] = set()

    def describe(self, name, version=None):
        version = version or self.default
        if version not in self.versions:
            return None
        return Model(name, version, "", 1, 1, 1, 0, 100, (Worker("9000", 1, True, False),))

    def register(self, archive):
        self._do("register")
        self.versions.add(archive.removesuffix(".mar").partition("-")[2])

    def set_default(self, _, version):
        self._do(f"set_default {version}")
        self.default = version

    def unregister(self, _, version):
        self._do("unregister")
        assert version != self.default
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
def target(tmp_path, registry, shares, monkeypatch):
    monkeypatch.setattr(readiness, "check_prediction", lambda *_: None)
    packing.pack(tmp_path / "store")
    packing.pack(tmp_path / "store", version="1.1")
    live.write(tmp_path, {"tiny": Live("1.0")})
    return Target(
        management=registry,
        inference="",
        token=tokens.nobody,
        model_store=tmp_path / "store",
        state=tmp_path,
        workers_log=tmp_path / "workers.log",
        start_timeout=1,
        grace=0,
        split=lambda state: shares.append(state["tiny"].canary),
    )


def _silent(_: str) -> None:
    pass


def _holds(target, registry, version, canary=None):
    state = live.read(target.state)["tiny"]
    assert (state.version, state.canary, registry.default) == (version, canary, version)
    assert registry.versions == set(state.versions)


@pytest.mark.parametrize("step", ["register", "set_default 1.1"])
def test_refused_step_leaves_the_live_version(target, registry, step):
    registry.refused = {step}
    with pytest.raises(RefusedError, match=step):
        rollout.deploy(target, "tiny", "1.1", _silent)
    _holds(target, registry, "1.0")


def test_state_that_cannot_be_written_leaves_the_live_version(target, registry, monkeypatch):
    def full(*_):
        raise StateError("no space")

    monkeypatch.setattr(live, "write", full)
    with pytest.raises(StateError):
        rollout.deploy(target, "tiny", "1.1", _silent)
    _holds(target, registry, "1.0")


def test_old_version_that_stays_is_told_after_the_switch(target, registry):
    registry.refused = {"unregister"}
    with pytest.raises(RolloutError, match=r"done, but tiny 1\.0, which nobody asks any more, still runs"):
        rollout.deploy(target, "tiny", "1.1", _silent)
    assert live.read(target.state)["tiny"] == Live("1.1", ("1.0",))
    assert registry.default == "1.1"


def test_share_that_the_gateway_refuses_leaves_no_canary(target, registry):
    def refuse(state):
        if state["tiny"].canary:
            raise RolloutError("nginx did not")

    with pytest.raises(RolloutError, match="nginx did not"):
        rollout.canary(dataclasses.replace(target, split=refuse), "tiny", "1.1", 10, _silent)
    _holds(target, registry, "1.0")


def test_split_that_cannot_be_ended_leaves_the_canary(target, registry):
    rollout.canary(target, "tiny", "1.1", 10, _silent)

    def refuse(state):
        if not state["tiny"].canary:
            raise RolloutError("nginx did not")

    with pytest.raises(RolloutError, match="nginx did not"):
        rollout.abort(dataclasses.replace(target, split=refuse), "tiny", _silent)
    _holds(target, registry, "1.0", Canary("1.1", 10))


def test_promotion_that_is_refused_leaves_the_canary(target, registry):
    rollout.canary(target, "tiny", "1.1", 10, _silent)
    registry.refused = {"set_default 1.1"}
    with pytest.raises(RefusedError):
        rollout.promote(target, "tiny", _silent)
    _holds(target, registry, "1.0", Canary("1.1", 10))


def test_the_gateway_is_told_in_the_right_order(target, registry, shares):
    rollout.canary(target, "tiny", "1.1", 10, _silent)
    rollout.canary(target, "tiny", "1.1", 50, _silent)
    rollout.promote(target, "tiny", _silent)
    assert shares == [Canary("1.1", 10), Canary("1.1", 50), None]
    _holds(target, registry, "1.1")
