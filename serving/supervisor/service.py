"""Start, stop, and status of a service that runs in the background.

The supervisor (``supervisor.py``) does the work. It runs if its lock is held, and no other process gets a signal.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil

from serving import Report, polling
from serving.errors import BusyError, ServingError
from serving.settings import ROOT, Settings
from serving.supervisor import control, state
from serving.supervisor.state import State
from serving.torchserve import management
from serving.torchserve.management import Model
from serving.torchserve.readiness import last_lines

# The longest stop: 80 s for open requests, 15 s for the others (supervisor.py), and a margin.
_STOP_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Status:
    """The current status of the service.

    Attributes:
        state: ``None`` if the service is not running.
        models: from the management API; ``None`` if it does not answer.
        ready: all processes run, and the default version of each model is ready.
    """

    state: State | None
    models: list[Model] | None = None
    ready: bool = False


def start(settings: Settings, report: Report) -> None:
    """Start the service in the background, and return when it is ready.

    Args:
        settings: of the service.
        report: receives the progress.

    Raises:
        ServingError: the start failed, or the service was stopped during it; nothing is left running.
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
        control.outcome(
            reading, report, lambda: f"the supervisor ended during the start; last lines of {log}:\n{last_lines(log)}"
        )
    except BaseException:
        # Also on Ctrl-C. The supervisor stops the parts that it has started.
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)
        raise
    finally:
        os.close(reading)


def stop(settings: Settings) -> bool:
    """Stop the service, if it runs, and wait until nothing of it is left.

    Returns:
        Whether the service was running.

    Raises:
        BusyError: the supervisor does not end.
    """
    running = state.running(settings)
    if running is None:
        return False
    family = _family(running.pid)
    os.kill(running.pid, signal.SIGTERM)
    timeout = _STOP_TIMEOUT_S + settings.drain_delay
    # The supervisor releases its lock shortly before it and the last killed processes are gone.
    if not polling.wait_until(lambda: state.running(settings) is None and all(map(ended, family)), timeout):
        log = settings.log("supervisor.log")
        raise BusyError(f"the supervisor (pid {running.pid}) did not end within {timeout:g} s; see {log}")
    return True


def _family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended, even if its parent has not read its exit status yet."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def status(settings: Settings) -> Status:
    """The processes of the service, and its models."""
    running = state.running(settings)
    if running is None:
        return Status(None)
    api = management.of_service(settings)
    try:
        models, waiting = api.models(), api.waiting()
    except ServingError:
        return Status(running)
    complete = bool(running.processes) and running.processes.keys() == set(running.ready)
    return Status(running, models, complete and not waiting)
