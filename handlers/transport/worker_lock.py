"""A lock file by which a worker learns whether it is the only one of its model version.

Only such a worker may answer a message in parts: beside another worker it would wait for the frontend's lock, which an
idle worker keeps until a request arrives (``pipeline.py``).

The workers of a version share the folder that TorchServe unpacked their archive to, and lock a file there. The kernel
releases a worker's locks when it ends, whatever the cause.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

_FILE_NAME = "workers.lock"

# Bytes of the file. Byte 0: held in shared mode by every worker, so that only a worker on its own can lock it
# exclusively. Byte 1: held exclusively by a worker that answers in parts; a new worker blocks on it until that worker
# stops.
_PRESENT, _EXCLUSIVE = 0, 1


class WorkerLock:
    """The lock shared by the workers of a model version.

    A worker creates it before it takes requests. That blocks while another worker holds the lock by ``acquire``.

    Args:
        folder: of the unpacked archive.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        # Closing any descriptor of the file would release all locks of the process, so it is opened only here.
        self._file = (folder / _FILE_NAME).open("a+b")
        self._acquired = False
        fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _PRESENT)
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _EXCLUSIVE)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _EXCLUSIVE)

    def acquire(self) -> bool:
        """Return whether this worker is the only one; if so, new workers block until ``release``."""
        # With other workers present, don't take byte 1: a newcomer may be blocked on it.
        return self._is_alone() and (self._acquired or self._lock_out())

    def release(self) -> None:
        """Let new workers start."""
        if self._acquired:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _EXCLUSIVE)
            self._acquired = False

    def _is_alone(self) -> bool:
        if alone := self._try_lock(_PRESENT):
            fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _PRESENT)
        return alone

    def _lock_out(self) -> bool:
        self._acquired = self._try_lock(_EXCLUSIVE)
        # A worker may have started completely between the two locks.
        if self._acquired and not self._is_alone():
            self.release()
        return self._acquired

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True
