"""Reload nginx with the current rollout state: the canaries' shares, and the key that TorchServe requires.

Both are in one file, ``run/gateway/live/live.conf``, which ``nginx/main.conf.template`` includes. A reload loses no
request: on SIGHUP nginx starts workers with the new configuration, and the old ones finish their requests.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from serving import files, polling
from serving.errors import RolloutError
from serving.settings import Settings
from serving.store.live import Live
from serving.torchserve import tokens

# Seconds that new nginx workers may take to come up, and old ones to finish: worker_shutdown_timeout ends them.
_UP = 10.0
_DOWN = 95.0

_TEMPLATE = """\
{splits}map "$version/$model" $at_version {{
    default "";
    "~^(?<asked>[^/]+)/" /$asked;
{shares}}}
{sent}"""


def live_file(settings: Settings) -> Path:
    """The file that changes while nginx runs."""
    return settings.run / "gateway" / "live" / "live.conf"


def render(state: Mapping[str, Live], headers: Mapping[str, str]) -> str:
    """The file's text.

    Args:
        state: what is live.
        headers: with the token that TorchServe's inference API asks for, if it does.
    """
    splits = shares = ""
    canaries = ((model, live.canary) for model, live in sorted(state.items()) if live.canary)
    for number, (model, canary) in enumerate(canaries):
        splits += f'split_clients $request_id $drawn_{number} {{ {canary.percent:.2f}% "/{canary.version}"; * ""; }}\n'
        shares += f'    "/{model}" $drawn_{number};\n'
    sent = "".join(f'proxy_set_header {name} "{value}";\n' for name, value in headers.items())
    return _TEMPLATE.format(splits=splits, shares=shares, sent=sent)


def write(path: Path, text: str) -> bool:
    """Write the file, whole or not at all, for its owner's eyes alone; whether it has changed.

    Raises:
        RolloutError: it cannot be written; it is as it was.
    """
    try:
        if path.exists() and path.read_text() == text:
            return False
        files.write_atomically(path, text, mode=0o600)
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error.strerror or error}") from error
    return True


def apply(settings: Settings, state: Mapping[str, Live], wait: bool = True) -> bool:
    """Have the gateway hold to what is live, and to TorchServe's key.

    Args:
        settings: of the service.
        state: what is live.
        wait: return only when it does; no request is answered the old way then.

    Returns:
        Whether it does: ``False`` where something changed and no gateway runs to take it up.

    Raises:
        RolloutError: the gateway did not take it up.
        TokenError: TorchServe's key is not to be found.
    """
    text = render(state, tokens.headers(settings, "inference")())
    return not write(live_file(settings), text) or reload(settings.run / "gateway" / "nginx.pid", wait)


def reload(pid_file: Path, wait: bool) -> bool:
    """Have a running nginx of this machine take up its configuration.

    Args:
        pid_file: where nginx writes its master process's number.
        wait: until no worker has the old one.

    Returns:
        Whether an nginx runs.

    Raises:
        RolloutError: nginx kept its old configuration.
    """
    try:
        master = psutil.Process(int(pid_file.read_text()))
        # The number in a file that was left behind may be another process's by now.
        if "nginx" not in master.name():
            return False
        before = set(master.children())
        master.send_signal(signal.SIGHUP)
    except (OSError, ValueError, psutil.Error):
        return False

    def renewed() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(set(master.children()) - before)
        return False

    if not polling.wait_until(renewed, _UP):
        raise RolloutError("nginx did not take up its new configuration; the reason is in its log, gateway.log")
    if wait and not polling.wait_until(lambda: not any(worker.is_running() for worker in before), _DOWN):
        raise RolloutError("nginx workers with the old configuration are still answering; try again")
    return True
