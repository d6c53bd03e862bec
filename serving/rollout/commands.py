"""``python -m serving deploy|rollback|canary|promote|abort``: the command line, and what the supervisor does for it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from serving import Report
from serving.rollout import steps
from serving.rollout.steps import Rollout
from serving.settings import Settings

# What each command does in words, and which parts of the command line the method of ``Rollout`` with its name takes.
_COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "deploy": ("make a version live, after every check, with no request lost", ("version",)),
    "rollback": ("make the version live that was live before", ()),
    "canary": ("give a version a share of the requests", ("version", "percent")),
    "promote": ("make the canary the live version", ()),
    "abort": ("end the canary", ()),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to a parser's."""
    for name, (text, takes) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", help="a model of the service")
        if "version" in takes:
            command.add_argument("version", help="a version that the model store's index lists")
        if "percent" in takes:
            command.add_argument("--percent", type=float, default=10.0, help="its share (%(default)g)")
        command.add_argument(
            "--grace",
            type=float,
            default=steps.GRACE,
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
    _, takes = _COMMANDS[asked["command"]]
    change = Rollout(given, asked["model"], asked["grace"], report)
    return str(getattr(change, asked["command"])(*(asked[name] for name in takes)))
