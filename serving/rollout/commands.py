"""The commands ``python -m serving deploy|rollback|canary|promote|abort``: their arguments, and how to run them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from serving import Report
from serving.errors import RolloutError
from serving.rollout import steps
from serving.rollout.steps import Rollout
from serving.settings import Settings

# The help text of each command, and the arguments of the method of ``Rollout`` with the same name.
_COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "deploy": ("make a version live after all checks, without losing a request", ("version",)),
    "rollback": ("return to the version that was live before", ()),
    "canary": ("send a share of the requests to a version", ("version", "percent")),
    "promote": ("make the canary the live version", ()),
    "abort": ("end the canary", ()),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to a parser."""
    for name, (text, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", help="a model of the service")
        if "version" in options:
            command.add_argument("version", help="a version that the model store's index lists")
        if "percent" in options:
            command.add_argument(
                "--percent",
                type=float,
                default=10.0,
                help="share of the requests, above 0 and at most 100 (%(default)g)",
            )
        command.add_argument(
            "--grace",
            type=float,
            default=steps.GRACE_S,
            help="seconds for which a version must be idle before it is unregistered (%(default)g)",
        )


def run(arguments: Mapping[str, Any], settings: Settings, report: Report) -> str:
    """Run one command in the supervisor.

    Args:
        arguments: of the command line, by the names of ``add``.
        settings: of the service.
        report: receives the progress; raises ``RolloutError`` if the client has interrupted the command.

    Returns:
        The result, in one line.

    Raises:
        ServingError: nothing has changed; or only the cleanup failed, as the message says.
    """
    if settings.fleet:
        raise RolloutError(
            f"{arguments['command']} is refused in a replica of a fleet, where a version is an image: build one with "
            "make fleet-image, and have the fleet's engine deploy it"
        )
    if not 0 < (percent := arguments.get("percent", 100.0)) <= 100:
        raise RolloutError(f"--percent must be above 0 and at most 100, got {percent:g}")
    if not (grace := arguments["grace"]) >= 0:
        raise RolloutError(f"--grace must be 0 or more seconds, got {grace:g}")
    _, options = _COMMANDS[arguments["command"]]
    change = Rollout(settings, arguments["model"], grace, report)
    return str(getattr(change, arguments["command"])(*(arguments[name] for name in options)))
