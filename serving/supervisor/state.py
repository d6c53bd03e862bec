"""The supervisor's lock, held while it runs, and its state in ``run/service.json``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from filelock import FileLock, Timeout

from serving import files, polling
from serving.settings import Settings


@dataclasses.dataclass(frozen=True)
class State:
    """The content of ``run/service.json``.

    Attributes:
        pid: of the supervisor.
        started: time of the start, in seconds of the monotonic clock.
        scratch: folder of TorchServe's temporary files and the control socket. The supervisor removes it.
        processes: pid of each part; ``None`` while the part is not running.
        ready: the parts that have become ready since their last start, and run.
    """

    pid: int
    started: float
    scratch: str
    processes: dict[str, int | None]
    ready: list[str]


def lock(settings: Settings) -> FileLock:
    """The supervisor's lock."""
    return FileLock(settings.run / "supervisor.lock")


def path(settings: Settings) -> Path:
    """The path of the state."""
    return settings.run / "service.json"


def read(settings: Settings) -> State | None:
    """The state that the last supervisor wrote; ``None`` if there is none, or it cannot be parsed."""
    try:
        return State(**json.loads(path(settings).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(settings: Settings, state: State) -> None:
    """Replace the state.

    Raises:
        OSError: the file cannot be written; it is unchanged.
    """
    files.write_atomically(path(settings), json.dumps(dataclasses.asdict(state), indent=2) + "\n")


def running(settings: Settings) -> State | None:
    """The state of the running service; ``None`` if no supervisor runs."""
    if not settings.run.is_dir():
        return None
    try:
        with lock(settings).acquire(timeout=0):
            return None
    except Timeout:
        # A supervisor writes its state right after it has taken the lock.
        polling.wait_until(lambda: read(settings) is not None, 1)
        return read(settings)
