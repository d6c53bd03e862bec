"""Rollouts on a running service under load: a new version goes live without losing a request, or not at all."""

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
def versioned_service(tmp_path_factory):
    """A service with ``tiny`` 1.0 live; its model store has 1.1 and the less accurate 1.2. Tests leave 1.0 live."""
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
    """The exit code of a command that runs in the background."""
    command.communicate(timeout=30)
    return command.returncode


def _done(place: Place, *command: str) -> str:
    result = place.run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _refused(place: Place, *command: str) -> str:
    """The message of a command that must fail, after which 1.0 must be live and the only version."""
    before, workers = _state(place), _workers(place)
    result = place.run(*command)
    assert (result.returncode, result.stderr[:7]) == (1, "error: "), result.stdout + result.stderr
    assert (_state(place), _registered(place), _answers(place)) == (before, [before.version], before.version)
    # The workers of an unregistered version take a moment to end.
    assert wait_until(lambda: _workers(place) == workers, 10)
    return result.stderr


def test_deploy_and_rollback_lose_no_request(versioned_service):
    # Directly to TorchServe, because the gateway could hide a failure with a retry.
    with Callers(versioned_service.inference) as callers:
        output = _done(versioned_service, "deploy", "tiny", "1.1", *QUICK)
        assert output.splitlines()[-1] == "tiny 1.1 is live"
        assert (_state(versioned_service), _registered(versioned_service)) == (Live("1.1", ("1.0",)), ["1.1"])
        before = callers.versions["1.1"]
        assert wait_until(lambda: callers.versions["1.1"] > before + 20, 10)
        output = _done(versioned_service, "rollback", "tiny", *QUICK)
        assert output.splitlines()[-1] == "tiny 1.0 is live"
        assert (_state(versioned_service), _registered(versioned_service)) == (Live("1.0"), ["1.0"])
    assert (callers.failures, callers.broken) == ([], 0)
    assert callers.versions.keys() == {"1.0", "1.1"}


def test_canary_is_promoted_with_no_request_lost(versioned_service):
    with Callers(versioned_service.gateway) as callers:
        _done(versioned_service, "canary", "tiny", "1.1", "--percent", "25")
        assert _state(versioned_service) == Live("1.0", (), Canary("1.1", 25))
        start = callers.versions.copy()
        assert wait_until(lambda: (callers.versions - start).total() > 400, 60)
        drawn = callers.versions - start
        # A quarter of 400 is 100. A value outside 50 to 160 happens about once in 10^8 runs.
        assert 50 / 400 < drawn["1.1"] / drawn.total() < 160 / 400
        status = versioned_service.run("status").stdout
        for words in ("live .*75 % .*1 of 1 .*0.9000", "canary .*25 % .*1 of 1 .*0.8960"):
            assert re.search(words, status), status
        output = _refused_during_canary(versioned_service)
        assert "1.1 is a canary with 25 %" in output
        _done(versioned_service, "promote", "tiny", *QUICK)
        assert (_state(versioned_service), _registered(versioned_service)) == (Live("1.1", ("1.0",)), ["1.1"])
        _done(versioned_service, "rollback", "tiny", *QUICK)
    assert callers.failures == []
    assert _refused(versioned_service, "promote", "tiny").endswith("tiny has no canary\n")


def _refused_during_canary(place: Place) -> str:
    output = set()
    for command in (("deploy", "tiny", "1.2"), ("canary", "tiny", "1.2"), ("rollback", "tiny")):
        result = place.run(*command)
        assert result.returncode == 1
        output.add(result.stderr)
    assert len(output) == 1
    return output.pop()


def test_canary_is_aborted_with_no_request_lost(versioned_service):
    with Callers(versioned_service.gateway) as callers:
        for percent in ("10", "60"):
            _done(versioned_service, "canary", "tiny", "1.1", "--percent", percent)
        assert wait_until(lambda: callers.versions["1.1"] > 20, 30)
        output = _done(versioned_service, "abort", "tiny", *QUICK)
        assert output.splitlines()[-1] == "tiny 1.1 is no longer a canary"
        assert (_state(versioned_service), _registered(versioned_service)) == (Live("1.0"), ["1.0"])
    assert callers.failures == []


@pytest.mark.parametrize("percent", ["0", "-1", "100.1", "nan"])
def test_invalid_share_is_refused(versioned_service, percent):
    message = _refused(versioned_service, "canary", "tiny", "1.1", "--percent", percent)
    assert f"--percent must be above 0 and at most 100, got {percent}" in message


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
        ({"changes": {"golden.npz": None}}, None, "no golden examples"),
        ({"accuracy": 0.4}, None, "the catalog requires 0.5000"),
        ({"accuracy": float("nan")}, None, "test accuracy of nan, the catalog requires 0.5000"),
        ({"accuracy": 0.894}, None, "more than 0.005 below the 0.9000 of the live version 1.0"),
        ({"changes": {"vector_classifier.py": CRASHING}}, None, "no such layer"),
        (
            {"changes": {"golden.npz": packing.npz(inputs=np.ones((1, 3), "f4"), probabilities=np.ones((1, 2), "f4"))}},
            None,
            "the probabilities differ",
        ),
    ],
    ids=[
        *("truncated", "replaced", "missing", "no signature", "no golden examples", "under the floor", "no accuracy"),
        *("less accurate than the live one", "does not load", "answers wrongly"),
    ],
)
def test_bad_version_does_not_go_live(versioned_service, options, damage, reason):
    path = packing.pack(versioned_service.settings.model_store, version="3.0", **options)
    if damage:
        damage(path)
    assert reason in _refused(versioned_service, "deploy", "tiny", "3.0", *QUICK)


def test_unlisted_version_does_not_go_live(versioned_service):
    assert "does not list tiny 9.9; run: make archive MODEL=tiny VERSION=9.9" in _refused(
        versioned_service, "deploy", "tiny", "9.9"
    )


def test_live_version_is_not_deployed_again(versioned_service):
    assert "is already live" in _refused(versioned_service, "deploy", "tiny", "1.0")


def test_rollback_without_a_previous_version_is_refused(versioned_service):
    assert "nothing to roll back to" in _refused(versioned_service, "rollback", "tiny")


def test_unknown_model_is_refused(versioned_service):
    for command in (("rollback", "nothing"), ("promote", "nothing"), ("canary", "nothing", "1.0")):
        assert "the service has no model nothing" in _refused(versioned_service, *command)


def test_new_model_can_be_deployed(versioned_service):
    packing.pack(versioned_service.settings.model_store, "another")
    _done(versioned_service, "deploy", "another", "1.0")
    try:
        answer = requests.post(f"{versioned_service.inference}/predictions/another", json=[1, 2, 3], timeout=10)
        assert answer.status_code == 200
        assert live.read(versioned_service.settings.run)["another"] == Live("1.0")
    finally:
        Management(versioned_service.management).unregister("another", "1.0")
        live.write(versioned_service.settings.run, {"tiny": _state(versioned_service)})
        (versioned_service.settings.model_store / "another.mar").unlink()


def test_failed_write_of_the_state_leaves_the_live_version(versioned_service):
    # Like a full disk: a folder cannot be replaced by a file.
    path = versioned_service.settings.run / live.NAME
    state = path.read_text()
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    try:
        result = versioned_service.run("deploy", "tiny", "1.1", *QUICK)
    finally:
        (path / "x").unlink()
        path.rmdir()
        path.write_text(state)
    assert (result.returncode, str(path) in result.stderr) == (1, True)
    assert (_state(versioned_service), _registered(versioned_service), _answers(versioned_service)) == (
        Live("1.0"),
        ["1.0"],
        "1.0",
    )


def test_second_rollout_is_refused_while_one_is_running(versioned_service):
    first = versioned_service.begin("deploy", "tiny", "1.1", "--grace", "3")
    assert first.stdout is not None
    for line in first.stdout:
        if "draining" in line:
            break
    result = versioned_service.run("deploy", "tiny", "1.2")
    assert (result.returncode, "another rollout is running" in result.stderr) == (1, True)
    # A rollback waits instead.
    _done(versioned_service, "rollback", "tiny", *QUICK)
    assert _ended(first) == 0
    assert (_state(versioned_service), _registered(versioned_service), _answers(versioned_service)) == (
        Live("1.0"),
        ["1.0"],
        "1.0",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_rollout_leaves_the_live_version(versioned_service, number):
    begun = versioned_service.begin("deploy", "tiny", "1.1")
    assert wait_until(lambda: len(_registered(versioned_service)) == 2, 30)
    begun.send_signal(number)
    assert _ended(begun) != 0
    assert (_state(versioned_service), _registered(versioned_service), _answers(versioned_service)) == (
        Live("1.0"),
        ["1.0"],
        "1.0",
    )


def test_supervisor_undoes_a_rollout_whose_command_was_killed(versioned_service):
    begun = versioned_service.begin("deploy", "tiny", "1.1")

    def is_registered() -> bool:
        """Look while the command stands still, because on a busy machine it could go live before it is killed."""
        begun.send_signal(signal.SIGSTOP)
        found = len(_registered(versioned_service)) == 2
        begun.send_signal(signal.SIGKILL if found else signal.SIGCONT)
        return found

    assert wait_until(is_registered, 30)
    _ended(begun)
    assert wait_until(lambda: _registered(versioned_service) == ["1.0"], 30)
    assert (_state(versioned_service), _answers(versioned_service)) == (Live("1.0"), "1.0")


def test_change_by_hand_is_refused(versioned_service):
    live.write(versioned_service.settings.run, {"tiny": Live("1.1")})
    try:
        result = versioned_service.run("deploy", "tiny", "1.2")
        assert (result.returncode, "was changed by hand" in result.stderr) == (1, True)
    finally:
        live.write(versioned_service.settings.run, {"tiny": Live("1.0")})


def test_live_versions_survive_the_death_of_the_frontend_and_a_restart(versioned_service):
    _done(versioned_service, "deploy", "tiny", "1.1", *QUICK)
    _done(versioned_service, "canary", "tiny", "1.0", "--percent", "40")
    expected = Live("1.1", ("1.0",), Canary("1.0", 40))

    def restored() -> bool:
        with contextlib.suppress(Exception):
            return _registered(versioned_service) == ["1.0", "1.1"] and versioned_service.run("status").returncode == 0
        return False

    versioned_service.process(parts.FRONTEND).kill()
    assert wait_until(restored, 60)
    assert (_state(versioned_service), _answers(versioned_service)) == (expected, "1.1")
    assert versioned_service.run("restart").returncode == 0
    assert (_state(versioned_service), _registered(versioned_service), _answers(versioned_service)) == (
        expected,
        ["1.0", "1.1"],
        "1.1",
    )
    with requests.Session() as session:
        answers = [
            session.post(f"{versioned_service.gateway}/predictions/tiny", json=[1, 2, 3], timeout=10)
            for _ in range(100)
        ]
    assert {answer.headers["X-Model-Version"] for answer in answers} == {"1.0", "1.1"}
    _done(versioned_service, "abort", "tiny", *QUICK)
    _done(versioned_service, "rollback", "tiny", *QUICK)


def test_changed_archive_of_a_live_version_is_not_loaded(place):
    path = packing.pack(place.settings.model_store)
    place.start()
    path.write_bytes(path.read_bytes()[:-1])
    assert _answers(place) == "1.0"
    place.run("stop")
    started = place.run("start")
    assert (started.returncode, "is not what was packed" in started.stderr) == (1, True)
    assert json.loads((place.settings.model_store / index.NAME).read_text())
    place.assert_no_process()


def test_rollout_without_a_service_is_refused(place):
    packing.pack(place.settings.model_store)
    result = place.run("deploy", "tiny", "1.0")
    assert (result.returncode, "the service is not running" in result.stderr) == (1, True)
    assert result.stderr.count("\n") == 1
