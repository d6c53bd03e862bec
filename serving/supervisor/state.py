"""What runs: the supervisor's lock, which it holds while it lives, and ``run/service.json``, which it writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from filelock import FileLock, Timeout

from serving import files, polling
from serving.settings import Settings


@dataclasses.dataclass(frozen=True)
class State:
    """What ``run/service.json`` holds.

    Attributes:
        pid: the supervisor.
        started: when, by the monotonic clock, in seconds.
        scratch: folder of TorchServe's temporary files and of the control socket; the end of the service removes it.
        processes: pid of each part; ``None`` while it is not running.
    """

    pid: int
    started: float
    scratch: str
    processes: dict[str, int | None]


def lock(settings: Settings) -> FileLock:
    """The lock that a supervisor holds."""
    return FileLock(settings.run / "supervisor.lock")


def path(settings: Settings) -> Path:
    """The file of the state."""
    return settings.run / "service.json"


def read(settings: Settings) -> State | None:
    """The state that the last supervisor wrote; ``None`` where there is none, or none that can be read."""
    try:
        return State(**json.loads(path(settings).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(settings: Settings, state: State) -> None:
    """Replace the state.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    files.write_atomically(path(settings), json.dumps(dataclasses.asdict(state), indent=2) + "\n")


def running(settings: Settings) -> State | None:
    """The state of the service that runs; ``None`` where no supervisor lives."""
    if not settings.run.is_dir():
        return None
    try:
        with lock(settings).acquire(timeout=0):
            return None
    except Timeout:
        # A supervisor writes its state right after it has the lock.
        polling.wait_until(lambda: read(settings) is not None, 1)
        return read(settings)
