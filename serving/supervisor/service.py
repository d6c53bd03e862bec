"""The service as commands see it from outside: started in the background, stopped, looked at.

The supervisor (``supervisor.py``) does the work. Its lock alone proves that it lives, and no other process is
signaled.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys

from serving import Report, polling
from serving.errors import BusyError, ServingError
from serving.settings import ROOT, Settings
from serving.supervisor import control, state
from serving.supervisor.state import State
from serving.torchserve import management
from serving.torchserve.management import Model

# A stop answers what is in flight and ends TorchServe, both at most; then there is some seconds' margin.
_STOP_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Status:
    """The service as it is now.

    Attributes:
        state: ``None`` when it is stopped.
        models: as the management API describes them; ``None`` when it does not answer.
        ready: every process runs, and the default version of every model takes requests.
    """

    state: State | None
    models: list[Model] | None = None
    ready: bool = False


def start(settings: Settings, report: Report) -> None:
    """Start the service in the background, and return when it is ready.

    Args:
        settings: of the service.
        report: told what is going on, whenever that changes.

    Raises:
        ServingError: it could not be started, or was stopped meanwhile; nothing is left running.
    """
    log = settings.log("supervisor.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.supervisor.supervisor", str(writing)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    try:
        control.outcome(reading, report, f"the start was broken off; see {log}")
    except BaseException:
        # Ctrl-C too. It ends what it has started.
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)
        raise
    finally:
        os.close(reading)


def stop(settings: Settings) -> bool:
    """Stop everything and remove what it left; nothing happens where nothing runs.

    Returns:
        Whether anything was running.

    Raises:
        BusyError: it does not end.
    """
    found = state.running(settings)
    if found is None:
        return False
    os.kill(found.pid, signal.SIGTERM)
    if not polling.wait_until(lambda: state.running(settings) is None, _STOP_TIMEOUT_S + settings.drain_delay):
        raise BusyError(f"the supervisor (pid {found.pid}) does not end; see {settings.log('supervisor.log')}")
    return True


def status(settings: Settings) -> Status:
    """What runs, and what TorchServe says of its models."""
    found = state.running(settings)
    if found is None:
        return Status(None)
    api = management.of_service(settings)
    try:
        models, waiting = api.models(), api.waiting()
    except ServingError:
        return Status(found)
    whole = bool(found.processes) and None not in found.processes.values()
    return Status(found, models, whole and not waiting)
