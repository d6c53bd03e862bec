"""What changes in the gateway while it runs: the canary's share, and the key that TorchServe asks of it.

``gateway/nginx.conf.template`` includes the files of one folder, ``run/gateway/live``. A change writes them anew and
tells nginx to take them up, which loses no request: nginx starts workers with the new configuration, and the old ones
answer what they have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from serving import processes, tokens
from serving.errors import RolloutError
from serving.gateway import live_folder
from serving.live import Live
from serving.settings import Settings

SPLIT, SHARES, KEY = "split.conf", "canary.map", "key.conf"

# Seconds that new nginx workers may take to come up, and old ones to finish: worker_shutdown_timeout ends them.
_UP = 10.0
_DOWN = 95.0


def write(folder: Path, state: Mapping[str, Live], key: str | None) -> bool:
    """Write the files that the gateway includes.

    Args:
        folder: where; made when needed.
        state: what is live.
        key: the bearer token that TorchServe's inference API asks for, if it does.

    Returns:
        Whether anything changed.

    Raises:
        RolloutError: a file cannot be written; those that are there are whole.
    """
    canaries = [(model, live.canary) for model, live in sorted(state.items()) if live.canary]
    splits = [
        f'split_clients $request_id $drawn_{number} {{ {canary.percent:.2f}% "/{canary.version}"; * ""; }}\n'
        for number, (_, canary) in enumerate(canaries)
    ]
    shares = [f'"/{model}" $drawn_{number};\n' for number, (model, _) in enumerate(canaries)]
    # What TorchServe's key is, nobody but nginx's user needs to know.
    keys = [f'proxy_set_header Authorization "Bearer {key}";\n'] if key else []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = [_replace(folder / name, lines) for name, lines in ((SPLIT, splits), (SHARES, shares), (KEY, keys))]
    except OSError as error:
        raise RolloutError(f"the gateway's files in {folder} cannot be written: {error.strerror or error}") from error
    return any(changed)


def _replace(path: Path, lines: list[str]) -> bool:
    content = "".join(lines)
    before = path.read_text() if path.exists() else ""
    if content == before:
        return False
    fresh = path.with_name(f".{path.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return True


def apply(settings: Settings, state: Mapping[str, Live], drained: bool = True) -> bool:
    """Have the gateway of this machine hold to what is live, and to TorchServe's key.

    Args:
        settings: of the service.
        state: what is live.
        drained: return only when no request can be answered the old way any more.

    Returns:
        Whether it does: ``False`` where something changed and no gateway runs to take it up.

    Raises:
        RolloutError: the gateway did not take it up.
        TokenError: TorchServe's key is not to be found.
    """
    keys = tokens.given_by(settings)
    key = keys.inference() if keys else None
    if not write(live_folder(settings), state, key):
        return True
    return reload(settings.run / "gateway" / "nginx.pid", drained)


def reload(pid_file: Path, drained: bool) -> bool:
    """Have a running nginx take up its configuration.

    Args:
        pid_file: where nginx writes its master process's number.
        drained: wait until no worker has the old one.

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
        os.kill(master.pid, signal.SIGHUP)
    except (OSError, ValueError, psutil.Error):
        return False

    def renewed() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(set(master.children()) - before)
        return False

    if not processes.wait_until(renewed, _UP):
        raise RolloutError("nginx did not take up its new configuration; the reason is in its log, gateway.log")
    if drained and not processes.wait_until(lambda: not any(worker.is_running() for worker in before), _DOWN):
        raise RolloutError("nginx workers with the old configuration are still answering; try again")
    return True
