"""Restarts of a part that has ended or hangs, with exponential backoff and without a limit on their number."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext

from serving import Report
from serving.errors import ServingError
from serving.supervisor.child import Child

logger = logging.getLogger(__name__)

# The longest pause between two restart attempts. It bounds how long a part stays down after the cause is gone.
_BACKOFF_LIMIT_S = 60.0
# A part that has run for this long is stable; its backoff starts at the beginning again.
_STABLE_AFTER_S = 60.0


async def keep_running(child: Child, backoff: float, report: Report, lock: asyncio.Lock | None) -> None:
    """Restart a part each time that it ends or hangs, until canceled.

    Args:
        child: the part, which runs.
        backoff: the pause before the second attempt, in seconds. It doubles with each further attempt.
        report: receives the progress.
        lock: held during a restart.
    """
    attempt = 0
    while True:
        begun = time.monotonic()
        report(f"{await child.lost()}; restarting it")
        if time.monotonic() - begun > _STABLE_AFTER_S:
            attempt = 0
        while child.pid is None:
            if attempt:
                await asyncio.sleep(min(backoff * 2 ** (attempt - 1), _BACKOFF_LIMIT_S))
            attempt += 1
            begun = time.monotonic()
            try:
                async with lock or nullcontext():
                    await child.restart()
                report(f"{child.part.name} ready again after {time.monotonic() - begun:.1f} s")
            except ServingError as error:
                report(f"{child.part.name}: restart attempt {attempt} failed: {error}")
            except Exception:
                # The cause may pass, as that of a full disk does.
                logger.exception("%s: restart attempt %d failed", child.part.name, attempt)
