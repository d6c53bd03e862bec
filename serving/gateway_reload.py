"""Have a gateway that runs take up what is live (``serving/gateway_live.py``).

No request is lost: nginx starts workers with the new configuration, and the old ones answer what they have. A gateway
of this machine is sent SIGHUP. One in a container of its own shares the folder, notices the change by itself
(``serving/containers/gateway.py``), and is asked what it has taken up.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import requests

from serving import gateway_live, processes, tokens
from serving.errors import RolloutError
from serving.gateway import live_folder
from serving.live import Live
from serving.settings import HOST, Settings

# Seconds that new nginx workers may take to come up, and old ones to finish: worker_shutdown_timeout ends them.
_UP = 10.0
_DOWN = 95.0
_ANSWER_TIMEOUT = 2.0
# Seconds after its new workers answer until the old ones take no connection any more: nginx tells them so a tenth of a
# second after it has started the new ones.
_OLD_LISTEN = 0.5


def apply(settings: Settings, state: Mapping[str, Live], wait: bool = True) -> bool:
    """Have the gateway hold to what is live, and to TorchServe's key.

    Args:
        settings: of the service.
        state: what is live.
        wait: return only when it does; no request is answered the old way then, or, by a gateway in another
            container, only those that it has already.

    Returns:
        Whether it does: ``False`` where something changed and no gateway runs to take it up.

    Raises:
        RolloutError: the gateway did not take it up.
        TokenError: TorchServe's key is not to be found.
    """
    keys = tokens.given_by(settings)
    text = gateway_live.render(state, keys.inference() if keys else None)
    if not gateway_live.write(live_folder(settings), text):
        return True
    if settings.gateway_status.host == HOST:
        return reload(settings.run / "gateway" / "nginx.pid", wait)
    if wait:
        _await(f"{settings.gateway_status.url}/live", gateway_live.taken_up(text))
    return True


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
        os.kill(master.pid, signal.SIGHUP)
    except (OSError, ValueError, psutil.Error):
        return False

    def renewed() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(set(master.children()) - before)
        return False

    if not processes.wait_until(renewed, _UP):
        raise RolloutError("nginx did not take up its new configuration; the reason is in its log, gateway.log")
    if wait and not processes.wait_until(lambda: not any(worker.is_running() for worker in before), _DOWN):
        raise RolloutError("nginx workers with the old configuration are still answering; try again")
    return True


def _await(url: str, digest: str) -> None:
    def holds() -> bool:
        with requests.Session() as session, suppress(requests.RequestException):
            session.trust_env = False
            return session.get(url, timeout=_ANSWER_TIMEOUT).text.strip() == digest
        return False

    if not processes.wait_until(holds, _UP):
        raise RolloutError(f"the gateway did not take up its new configuration: {url} does not say so")
    time.sleep(_OLD_LISTEN)
