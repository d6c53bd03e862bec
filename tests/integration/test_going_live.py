"""New versions go live with no request lost, or not at all; tried on a running service that is being asked."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests

from serving.polling import wait_until
from serving.store import index, live
from serving.store.live import Canary, Live
from serving.supervisor import parts
from serving.torchserve.management import Management
from tests.support import packing
from tests.support.callers import Callers
from tests.support.place import Place, make_place

QUICK = ("--grace", "0.5")
CRASHING = b"class VectorClassifier:\n    def __init__(self):\n        raise RuntimeError('no such layer')\n"


@pytest.fixture(scope="module")
def rolled(tmp_path_factory):
    """A service with ``tiny`` 1.0 live; 1.1 and, less accurate, 1.2 are in its model store. Tests leave 1.0 live."""
    folder = tmp_path_factory.mktemp("rollout")
    place = make_place(folder, folder / "model_store")
    packing.pack(place.settings.model_store)
    place.start()
    packing.pack(place.settings.model_store, version="1.1", accuracy=0.896)
    packing.pack(place.settings.model_store, version="1.2", accuracy=0.894)
    yield place
    place.end()


def _state(place: Place) -> Live:
    return live.read(place.settings.run)["tiny"]


def _registered(place: Place) -> list[str]:
    return [model.version for model in Management(place.management).models() if model.name == "tiny"]


def _workers(place: Place) -> set[int]:
    return {process.pid for process in place.workers()}


def _answers(place: Place) -> str:
    answer = requests.post(f"{place.inference}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.status_code == 200
    return answer.headers["X-Model-Version"]


def _ended(command: subprocess.Popen[str]) -> int:
    """The exit code of a command that was begun."""
    command.communicate(timeout=30)
    return command.returncode


def _done(place: Place, *command: str) -> str:
    ran = place.run(*command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _refused(place: Place, *command: str) -> str:
    """The message of a command that must fail and leave 1.0 live, alone and unharmed."""
    before, workers = _state(place), _workers(place)
    ran = place.run(*command)
    assert (ran.returncode, ran.stderr[:7]) == (1, "error: "), ran.stdout + ran.stderr
    assert (_state(place), _registered(place), _answers(place)) == (before, [before.version], before.version)
    # What was unregistered may take a moment to be gone.
    assert wait_until(lambda: _workers(place) == workers, 10)
    return ran.stderr


def test_deploy_and_rollback_lose_no_request(rolled):
    # Straight at TorchServe: nothing between hides a failure.
    with Callers(rolled.inference) as asking:
        said = _done(rolled, "deploy", "tiny", "1.1", *QUICK)
        assert said.splitlines()[-1] == "tiny 1.1 is live"
        assert (_state(rolled), _registered(rolled)) == (Live("1.1", ("1.0",)), ["1.1"])
        before = asking.versions["1.1"]
        assert wait_until(lambda: asking.versions["1.1"] > before + 20, 10)
        said = _done(rolled, "rollback", "tiny", *QUICK)
        assert said.splitlines()[-1] == "tiny 1.0 is live"
        assert (_state(rolled), _registered(rolled)) == (Live("1.0"), ["1.0"])
    assert (asking.failures, asking.broken) == ([], 0)
    assert asking.versions.keys() == {"1.0", "1.1"}


def test_canary_is_promoted_with_no_request_lost(rolled):
    with Callers(rolled.gateway) as asking:
        _done(rolled, "canary", "tiny", "1.1", "--percent", "25")
        assert _state(rolled) == Live("1.0", (), Canary("1.1", 25))
        start = asking.versions.copy()
        assert wait_until(lambda: (asking.versions - start).total() > 400, 60)
        drawn = asking.versions - start
        # Of 400 a quarter; further off than 50 to 160 once in some 10^8 runs.
        assert 50 / 400 < drawn["1.1"] / drawn.total() < 160 / 400
        status = rolled.run("status").stdout
        for words in ("live .*75 % .*1 of 1 .*0.9000", "canary .*25 % .*1 of 1 .*0.8960"):
            assert re.search(words, status), status
        said = _refused_while_trying(rolled)
        assert "1.1 is a canary with 25 %" in said
        _done(rolled, "promote", "tiny", *QUICK)
        assert (_state(rolled), _registered(rolled)) == (Live("1.1", ("1.0",)), ["1.1"])
        _done(rolled, "rollback", "tiny", *QUICK)
    assert asking.failures == []
    assert _refused(rolled, "promote", "tiny").endswith("tiny has no canary\n")


def _refused_while_trying(place: Place) -> str:
    said = set()
    for command in (("deploy", "tiny", "1.2"), ("canary", "tiny", "1.2"), ("rollback", "tiny")):
        ran = place.run(*command)
        assert ran.returncode == 1
        said.add(ran.stderr)
    assert len(said) == 1
    return said.pop()


def test_canary_is_aborted_with_no_request_lost(rolled):
    with Callers(rolled.gateway) as asking:
        for percent in ("10", "60"):
            _done(rolled, "canary", "tiny", "1.1", "--percent", percent)
        assert wait_until(lambda: asking.versions["1.1"] > 20, 30)
        said = _done(rolled, "abort", "tiny", *QUICK)
        assert said.splitlines()[-1] == "tiny 1.1 is no longer a canary"
        assert (_state(rolled), _registered(rolled)) == (Live("1.0"), ["1.0"])
    assert asking.failures == []


@pytest.mark.parametrize("percent", ["0", "-1", "100.1", "nan"])
def test_share_that_is_none_is_refused(rolled, percent):
    assert "is no share" in _refused(rolled, "canary", "tiny", "1.1", "--percent", percent)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other(path: Path) -> None:
    path.write_bytes((path.parent / "tiny.mar").read_bytes())


@pytest.mark.parametrize(
    ("options", "damage", "reason"),
    [
        ({}, _truncate, "is not what was packed"),
        ({}, _other, "is not what was packed"),
        ({}, Path.unlink, "is missing"),
        ({"changes": {"signature.json": None}}, None, "signature.json missing"),
        ({"changes": {"golden.npz": None}}, None, "no known answers"),
        ({"accuracy": 0.4}, None, "under the catalog's floor of 0.5000"),
        ({"accuracy": float("nan")}, None, "under the catalog's floor"),
        ({"accuracy": 0.894}, None, "more than 0.005 less than the 0.9000 of 1.0"),
        ({"changes": {"vector_classifier.py": CRASHING}}, None, "no such layer"),
        (
            {"changes": {"golden.npz": packing.npz(inputs=np.ones((1, 3), "f4"), probabilities=np.ones((1, 2), "f4"))}},
            None,
            "the probabilities differ",
        ),
    ],
    ids=[
        *("truncated", "replaced", "missing", "no signature", "no known answers", "under the floor", "no accuracy"),
        *("less accurate than the live one", "does not load", "answers wrongly"),
    ],
)
def test_bad_version_does_not_go_live(rolled, options, damage, reason):
    path = packing.pack(rolled.settings.model_store, version="3.0", **options)
    if damage:
        damage(path)
    assert reason in _refused(rolled, "deploy", "tiny", "3.0", *QUICK)


def test_version_that_is_not_in_the_index_does_not_go_live(rolled):
    assert "lists no tiny 9.9; run: make archive MODEL=tiny VERSION=9.9" in _refused(rolled, "deploy", "tiny", "9.9")


def test_live_version_is_not_deployed_again(rolled):
    assert "is live already" in _refused(rolled, "deploy", "tiny", "1.0")


def test_there_is_nothing_to_go_back_to(rolled):
    assert "none to go back to" in _refused(rolled, "rollback", "tiny")


def test_unknown_model_is_told(rolled):
    for command in (("rollback", "nothing"), ("promote", "nothing"), ("canary", "nothing", "1.0")):
        assert "there is no model nothing" in _refused(rolled, *command)


def test_new_model_can_be_deployed(rolled):
    packing.pack(rolled.settings.model_store, "another")
    _done(rolled, "deploy", "another", "1.0")
    try:
        answer = requests.post(f"{rolled.inference}/predictions/another", json=[1, 2, 3], timeout=10)
        assert answer.status_code == 200
        assert live.read(rolled.settings.run)["another"] == Live("1.0")
    finally:
        Management(rolled.management).unregister("another", "1.0")
        live.write(rolled.settings.run, {"tiny": _state(rolled)})
        (rolled.settings.model_store / "another.mar").unlink()


def test_state_that_cannot_be_written_leaves_the_live_version(rolled):
    # As with a full disk: nothing takes the place of a folder.
    path = rolled.settings.run / live.NAME
    state = path.read_text()
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    try:
        ran = rolled.run("deploy", "tiny", "1.1", *QUICK)
    finally:
        (path / "x").unlink()
        path.rmdir()
        path.write_text(state)
    assert (ran.returncode, str(path) in ran.stderr) == (1, True)
    assert (_state(rolled), _registered(rolled), _answers(rolled)) == (Live("1.0"), ["1.0"], "1.0")


def test_second_rollout_is_refused_while_one_is_under_way(rolled):
    first = rolled.begin("deploy", "tiny", "1.1", "--grace", "3")
    for line in first.stdout:
        if "draining" in line:
            break
    ran = rolled.run("deploy", "tiny", "1.2")
    assert (ran.returncode, "another rollout is under way" in ran.stderr) == (1, True)
    # The one that undoes waits instead.
    _done(rolled, "rollback", "tiny", *QUICK)
    assert _ended(first) == 0
    assert (_state(rolled), _registered(rolled), _answers(rolled)) == (Live("1.0"), ["1.0"], "1.0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_rollout_that_is_broken_off_leaves_the_live_version(rolled, number):
    begun = rolled.begin("deploy", "tiny", "1.1")
    assert wait_until(lambda: len(_registered(rolled)) == 2, 30)
    begun.send_signal(number)
    assert _ended(begun) != 0
    assert (_state(rolled), _registered(rolled), _answers(rolled)) == (Live("1.0"), ["1.0"], "1.0")


def test_rollout_whose_command_is_killed_is_undone_by_the_supervisor(rolled):
    begun = rolled.begin("deploy", "tiny", "1.1")
    assert wait_until(lambda: len(_registered(rolled)) == 2, 30)
    begun.kill()
    _ended(begun)
    assert wait_until(lambda: _registered(rolled) == ["1.0"], 30)
    assert (_state(rolled), _answers(rolled)) == (Live("1.0"), "1.0")


def test_change_by_hand_is_told(rolled):
    live.write(rolled.settings.run, {"tiny": Live("1.1")})
    try:
        ran = rolled.run("deploy", "tiny", "1.2")
        assert (ran.returncode, "changed one of them by hand" in ran.stderr) == (1, True)
    finally:
        live.write(rolled.settings.run, {"tiny": Live("1.0")})


def test_what_is_live_survives_the_death_of_the_frontend_and_a_restart(rolled):
    _done(rolled, "deploy", "tiny", "1.1", *QUICK)
    _done(rolled, "canary", "tiny", "1.0", "--percent", "40")
    trying = Live("1.1", ("1.0",), Canary("1.0", 40))

    def whole() -> bool:
        with contextlib.suppress(Exception):
            return _registered(rolled) == ["1.0", "1.1"] and rolled.run("status").returncode == 0
        return False

    rolled.process(parts.FRONTEND).kill()
    assert wait_until(whole, 60)
    assert (_state(rolled), _answers(rolled)) == (trying, "1.1")
    assert rolled.run("restart").returncode == 0
    assert (_state(rolled), _registered(rolled), _answers(rolled)) == (trying, ["1.0", "1.1"], "1.1")
    with requests.Session() as session:
        asked = [session.post(f"{rolled.gateway}/predictions/tiny", json=[1, 2, 3], timeout=10) for _ in range(100)]
    assert {answer.headers["X-Model-Version"] for answer in asked} == {"1.0", "1.1"}
    _done(rolled, "abort", "tiny", *QUICK)
    _done(rolled, "rollback", "tiny", *QUICK)


def test_live_archive_that_was_changed_is_not_loaded_again(place):
    path = packing.pack(place.settings.model_store)
    place.start()
    path.write_bytes(path.read_bytes()[:-1])
    assert _answers(place) == "1.0"
    place.run("stop")
    started = place.run("start")
    assert (started.returncode, "is not what was packed" in started.stderr) == (1, True)
    assert json.loads((place.settings.model_store / index.NAME).read_text())
    place.assert_no_process()


def test_without_a_service_there_is_nothing_to_change(place):
    packing.pack(place.settings.model_store)
    ran = place.run("deploy", "tiny", "1.0")
    assert (ran.returncode, "the service does not run" in ran.stderr) == (1, True)
    assert ran.stderr.count("\n") == 1
