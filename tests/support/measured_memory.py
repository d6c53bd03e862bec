"""Measures the memory that this process takes."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path


class Memory:
    """Measures how much this process grows, with Linux's /proc; on other systems it measures nothing."""

    def __init__(self) -> None:
        self._resets = Path("/proc/self/clear_refs")
        self._status = Path("/proc/self/status")
        self._available = self._resets.exists()
        self._before = 0

    def start(self) -> None:
        """Measure growth from here."""
        if self._available:
            # Memory that the C library keeps for reuse would hide a request's own. Not every C library has malloc_trim.
            with contextlib.suppress(AttributeError, OSError):
                ctypes.CDLL(None).malloc_trim(0)
            self._resets.write_text("5")
            self._before = self._bytes("VmRSS:")

    def grown(self) -> int:
        """The largest growth since ``start``, in bytes."""
        return self._bytes("VmHWM:") - self._before if self._available else 0

    def _bytes(self, name: str) -> int:
        (line,) = (line for line in self._status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
