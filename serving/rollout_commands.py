"""``python -m serving deploy|rollback|canary|promote|abort|rotate``: what is live, from the command line."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from serving import gateway_reload, live, management, rollout, tokens
from serving.errors import RolloutError, SettingError
from serving.live import Live
from serving.management import Management
from serving.rollout import Report, Target
from serving.settings import Settings
from serving.tokens import Keys, Kind

NAMES = ("deploy", "rollback", "canary", "promote", "abort", "rotate")


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
        command.add_argument("--management", metavar="URL", help="management API of a TorchServe on another machine")
        command.add_argument("--inference", metavar="URL", help="its inference API")
        command.add_argument("--token-file", type=Path, metavar="FILE", help="a copy of its key_file.json")
    rotate = commands.add_parser("rotate", help="exchange one of TorchServe's tokens", description="Exchange a token.")
    rotate.add_argument("kind", choices=("inference", "management"), help="of which API")


def run(asked: argparse.Namespace, given: Settings, report: Report) -> str:
    """Carry out one command.

    Args:
        asked: the command line, as ``add`` reads it.
        given: the local service's settings.
        report: told of each step.

    Returns:
        What is live now, in one line.

    Raises:
        ServingError: nothing has changed; or, as the message says, all that is left to do is to tidy up.
    """
    if asked.command == "rotate":
        return _rotate(given, asked.kind, report)
    target = _target(asked, given)
    if asked.command == "deploy":
        rollout.deploy(target, asked.model, asked.version, report)
        return f"{asked.model} {asked.version} is live"
    if asked.command == "canary":
        rollout.canary(target, asked.model, asked.version, asked.percent, report)
        return f"{asked.model} {asked.version} gets {asked.percent:g} % of the requests that ask for no version"
    if asked.command == "abort":
        return f"{asked.model} {rollout.abort(target, asked.model, report)} is no canary any more"
    change = rollout.rollback if asked.command == "rollback" else rollout.promote
    return f"{asked.model} {change(target, asked.model, report)} is live"


def _target(asked: argparse.Namespace, given: Settings) -> Target:
    if asked.grace < 0:
        raise RolloutError(f"--grace {asked.grace:g}: seconds cannot be negative")
    if not asked.management:
        if asked.inference or asked.token_file:
            raise RolloutError("--inference and --token-file go with --management")
        if shutil.which("kill") is None:
            raise RolloutError("TorchServe ends workers by the program kill, which is missing; Debian: install procps")
        keys = tokens.given_by(given)
        return Target(
            management=management.of_service(given),
            inference=given.inference.url,
            token=keys.inference if keys else None,
            model_store=given.model_store,
            state=given.run,
            logs=given.logs,
            start_timeout=given.start_timeout,
            grace=asked.grace,
            split=lambda state: _split(given, state),
        )
    if not asked.inference:
        raise RolloutError("--management needs --inference too: the known answers are asked for there")
    keys = Keys(asked.token_file) if asked.token_file else None
    return Target(
        management=Management(_url(asked.management), token=keys.management if keys else None),
        inference=_url(asked.inference),
        token=keys.inference if keys else None,
        model_store=given.model_store,
        state=given.run / "remote" / urlsplit(asked.management).netloc.replace(":", "_"),
        logs=None,
        start_timeout=given.start_timeout,
        grace=asked.grace,
        split=None,
    )


def _rotate(given: Settings, kind: Kind, report: Report) -> str:
    keys = tokens.given_by(given)
    if keys is None:
        raise RolloutError("TorchServe asks for no tokens: FASHION_TOKENS=1 is not set")
    report(f"exchanging the {kind} key")
    keys.exchange(given.management.url, kind)
    # Until nginx has the new key, which takes some tenths of a second, what it sends on is refused.
    if kind == "inference" and not gateway_reload.apply(given, live.read(given.run), wait=False):
        return f"the {kind} key is new; no gateway runs here that must know"
    return f"the {kind} key is new"


def _url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise SettingError(f"{text!r} is no address; it must be like http://10.0.0.5:8081")
    return text.rstrip("/")


def _split(given: Settings, state: Mapping[str, Live]) -> None:
    if not gateway_reload.apply(given, state):
        raise RolloutError("the gateway does not run; see: make status")
