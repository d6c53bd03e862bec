"""Reload nginx with the rollout state: canaries' shares, registrations without batches, TorchServe's token.

A reload loses no request: on SIGHUP nginx starts workers with the new configuration, and the old ones finish their
requests.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from serving import polling
from serving.errors import RolloutError
from serving.gateway import live_config
from serving.settings import Settings
from serving.store.live import Live
from serving.torchserve import tokens

# nginx starts new workers in milliseconds, or logs an error and starts none. The rest is for a busy machine.
_RELOAD_TIMEOUT_S = 10.0
# Old workers may finish their requests. nginx ends them after 75 s (worker_shutdown_timeout).
_DRAIN_TIMEOUT_S = 95.0


def apply(settings: Settings, state: Mapping[str, Live], unbatched: Collection[str], wait: bool = True) -> bool:
    """Make the gateway use the rollout state and TorchServe's current token.

    Args:
        settings: of the service.
        state: the live versions and canaries of each model.
        unbatched: the models whose live version is also registered without batches.
        wait: return only after the workers with the old configuration have ended.

    Returns:
        Whether the gateway uses it: ``False`` if something changed and no gateway runs.

    Raises:
        RolloutError: the file cannot be written, nginx kept its old configuration, or its old workers still run.
        TokenError: TorchServe's token cannot be read.
    """
    text = live_config.render(state, unbatched, tokens.headers(settings, "inference")())
    changed = live_config.write(live_config.live_file(settings), text)
    return not changed or reload(settings.run / "gateway" / "nginx.pid", wait)


def reload(pid_file: Path, wait: bool) -> bool:
    """Make nginx reload its configuration.

    Args:
        pid_file: nginx's pid file.
        wait: return only after the workers with the old configuration have ended.

    Returns:
        Whether nginx runs.

    Raises:
        RolloutError: nginx kept its old configuration, or its old workers still run.
    """
    try:
        master = psutil.Process(int(pid_file.read_text()))
        # Since nginx left this file behind, another process may have received its pid.
        if "nginx" not in master.name():
            return False
        before = set(master.children())
        master.send_signal(signal.SIGHUP)
    except (OSError, ValueError, psutil.Error):
        return False

    def has_new_workers() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(set(master.children()) - before)
        return False

    if not polling.wait_until(has_new_workers, _RELOAD_TIMEOUT_S):
        raise RolloutError("nginx kept its old configuration; its log, gateway.log, has the reason")
    if wait and not polling.wait_until(lambda: not any(worker.is_running() for worker in before), _DRAIN_TIMEOUT_S):
        raise RolloutError(f"nginx's old workers are still running after {_DRAIN_TIMEOUT_S:.0f} s; try again")
    return True
