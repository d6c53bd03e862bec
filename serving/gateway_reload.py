"""Have a gateway that runs take up what is live (``serving/gateway_live.py``).

No request is lost: on SIGHUP nginx starts workers with the new configuration, and the old ones answer what they have.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from serving import gateway_live, processes, tokens
from serving.errors import RolloutError
from serving.gateway import live_folder
from serving.live import Live
from serving.settings import Settings

# Seconds that new nginx workers may take to come up, and old ones to finish: worker_shutdown_timeout ends them.
_UP = 10.0
_DOWN = 95.0


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
    text = gateway_live.render(state, tokens.of(settings, "inference")())
    return not gateway_live.write(live_folder(settings), text) or reload(settings.run / "gateway" / "nginx.pid", wait)


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
