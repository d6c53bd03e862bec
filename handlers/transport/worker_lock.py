"""Whether a worker is the only one of its model version.

Workers of a version share the folder that their archive was unpacked to. Each locks a file there, so that a worker's
end, whatever its cause, is seen at once.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

_NAME = "workers.lock"

# Bytes of the file. The first is shared by all workers. The second belongs to a worker that acts on being alone, and
# one that comes waits for it.
_ALL, _ALONE = 0, 1


class Siblings:
    """The other workers of a model version.

    Made by a worker before it takes requests; waits until one that acts on being alone has stopped that.

    Args:
        folder: of the unpacked archive.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        # Locks of a process end when it closes any descriptor of their file, so this is the only one.
        self._file = (folder / _NAME).open("a+b")
        self._acts = False
        fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _ALL)
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _ALONE)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _ALONE)

    def none(self) -> bool:
        """Whether there are none; if so, one that comes waits for ``let_come``."""
        # Who has siblings leaves the second byte alone, for which one of them may wait.
        return self._only() and (self._acts or self._act())

    def let_come(self) -> None:
        """Nothing depends on being alone any more."""
        if self._acts:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _ALONE)
            self._acts = False

    def _only(self) -> bool:
        if only := self._takes(_ALL):
            fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _ALL)
        return only

    def _act(self) -> bool:
        self._acts = self._takes(_ALONE)
        # One may have come and gone on in between.
        if self._acts and not self._only():
            self.let_come()
        return self._acts

    def _takes(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True
