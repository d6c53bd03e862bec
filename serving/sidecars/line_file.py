"""A file of lines that other processes append and this one reads, in turn with the truncation that keeps it small.

A line that is written between the last read and the truncation is lost. That is rare, because nginx writes at most once
a second and the gap takes microseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 20


class LineFile:
    """Reads each line once. Not for concurrent use.

    Args:
        path: of the file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._partial_line = b""
        self._truncation_failed = False

    def read(self) -> Iterator[list[bytes]]:
        """The complete lines since the last call, in portions of about a megabyte; truncates the file at the end.

        A file that cannot be read is logged, and has no lines.
        """
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:
                    # Another process truncated the file.
                    self._position = 0
                file.seek(self._position)
                while piece := file.read(_READ_BYTES):
                    self._position += len(piece)
                    *lines, self._partial_line = (self._partial_line + piece).split(b"\n")
                    yield lines
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("%s cannot be read, so its lines are not counted: %s", self._path, error)
            return
        self._truncate()

    def _truncate(self) -> None:
        if not self._position:
            return
        try:
            with self._path.open("rb+") as file:
                file.truncate(0)
            self._position = 0
        except OSError as error:
            if not self._truncation_failed:
                logger.warning("%s cannot be truncated and will grow: %s", self._path, error)
            self._truncation_failed = True
