"""``python -m serving deploy|rollback|canary|promote|abort``: the command line, and what the supervisor does for it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from typing import Any

from serving import gateway_reload, management, rollout, tokens
from serving.errors import RolloutError
from serving.live import Live
from serving.rollout import Report, Target
from serving.settings import Settings


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to a parser's."""
    for name, text in (
        ("deploy", "make a version live, after every check, with no request lost"),
        ("rollback", "make the version live that was live before"),
        ("canary", "give a version a share of the requests"),
        ("promote", "make the canary the live version"),
        ("abort", "end the canary"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", help="a model of the service")
        if name in ("deploy", "canary"):
            command.add_argument("version", help="a version that the model store's index lists")
        if name == "canary":
            command.add_argument("--percent", type=float, default=10.0, help="its share (%(default)g)")
        command.add_argument(
            "--grace",
            type=float,
            default=rollout.GRACE,
            help="seconds that a version must be idle before it is unregistered (%(default)g)",
        )


def run(asked: Mapping[str, Any], given: Settings, report: Report) -> str:
    """Carry out one command; the supervisor calls it.

    Args:
        asked: the command line, by the names that ``add`` gives its parts.
        given: the service's settings.
        report: told of each step; raises ``RolloutError`` where the command is broken off.

    Returns:
        What is live now, in one line.

    Raises:
        ServingError: nothing has changed; or, as the message says, all that is left to do is to tidy up.
    """
    command, model, version = asked["command"], asked["model"], asked.get("version", "")
    target = _target(given, asked["grace"])
    if command == "deploy":
        rollout.deploy(target, model, version, report)
        return f"{model} {version} is live"
    if command == "canary":
        rollout.canary(target, model, version, asked["percent"], report)
        return f"{model} {version} gets {asked['percent']:g} % of the requests that ask for no version"
    if command == "abort":
        return f"{model} {rollout.abort(target, model, report)} is no longer a canary"
    change = rollout.rollback if command == "rollback" else rollout.promote
    return f"{model} {change(target, model, report)} is live"


def _target(given: Settings, grace: float) -> Target:
    if not grace >= 0:
        raise RolloutError(f"--grace must be 0 or more seconds, got {grace:g}")
    if shutil.which("kill") is None:
        raise RolloutError("TorchServe ends workers by the program kill, which is missing; Debian: install procps")

    def split(state: Mapping[str, Live]) -> None:
        if not gateway_reload.apply(given, state):
            raise RolloutError("the gateway does not run; see: make status")

    return Target(
        management=management.of_service(given),
        inference=given.inference.url,
        token=tokens.of(given, "inference"),
        model_store=given.model_store,
        state=given.run,
        workers_log=given.log("workers.log"),
        start_timeout=given.start_timeout,
        grace=grace,
        split=split,
    )
