"""A replica of a fleet refuses every rollout."""

from __future__ import annotations

import pytest

from serving.errors import RolloutError
from serving.rollout import commands
from serving.settings import read as read_settings


@pytest.mark.parametrize("command", ["deploy", "canary", "promote", "abort", "rollback"])
def test_a_replica_of_a_fleet_refuses_and_says_what_to_do(command):
    settings = read_settings({"FASHION_FLEET": "1"})
    arguments = {"command": command, "model": "tiny", "version": "1.1", "percent": 10.0, "grace": 0.0}
    reports: list[str] = []
    with pytest.raises(RolloutError, match=f"^{command} is refused in a replica of a fleet.*make fleet-image"):
        commands.run(arguments, settings, reports.append)
    assert reports == []
