"""Rollouts under load: deploy, rollback, canary, promote, abort."""

from __future__ import annotations

from tests.support import scenes


def test_rollouts_lose_no_request(prepared, tmp_path, rate):
    place, live = prepared
    place.start()
    # The same network with other probabilities, so that an answer shows its version.
    new = scenes.variant(live, place.settings.model_store, "1.1", sharpness=0.5)
    scene = scenes.Scene(place, [live, new], tmp_path, rate(place, [live]), 0)
    load = scene.load(600)
    load.settle()
    for command in (
        ["deploy", scenes.MODEL, "1.1"],
        ["rollback", scenes.MODEL],
        ["canary", scenes.MODEL, "1.1", "--percent", "30"],
        ["abort", scenes.MODEL],
        ["canary", scenes.MODEL, "1.1", "--percent", "30"],
        ["promote", scenes.MODEL],
    ):
        load.event(" ".join(word for word in command if word != scenes.MODEL))
        finished = place.run(*command, "--grace", "1")
        assert finished.returncode == 0, finished.stderr
    load.event("done")
    load.settle(scenes.REQUESTS / scene.rate if scenes.FULL else 1)
    load.stop()
    result = load.result()
    scenes.keep("rollout", "Deploy, rollback, canary, abort, canary, promote", result)
    assert scenes.failed(result) == {}
    # A new share reloads nginx, which closes idle connections; clients retry.
    assert result["tries"].keys() <= {"ok", "broken"}
    assert result["versions"].keys() == {"1.0", "1.1"}
    if scenes.FULL:
        assert result["calls"]["ok"] >= scenes.REQUESTS
