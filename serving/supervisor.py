"""The service's own watch: a process that ended by itself is started again.

    python -m serving.supervisor        left behind by `python -m serving start`, which with --foreground watches itself

    look ─► all run ─► look again
      │        └─ but TorchServe has long been silent ─► kill it ─┐
      └───► some ended ◄──────────────────────────────────────────┘
              └─► wait, longer each time ─► start them again, as the start did ─► look again
                                                 └─ for the last time in vain ─► give up, and say why

What TorchServe loads when it starts again is what is live then (``run/live.json``). The workers are TorchServe's own
to watch.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from serving import processes, service, settings
from serving.errors import ServingError, StartError
from serving.processes import ProcessId
from serving.service import Report
from serving.settings import ROOT, Settings

NAME = "supervisor"

logger = logging.getLogger("serving.supervisor")

# Attempts in a row; after the last one it gives up. The first comes at once, the others after growing pauses.
ATTEMPTS = 5
# Seconds that all must run for the next attempt to be a first one again.
SETTLED = 60.0
# Seconds between two looks, and between two questions to the frontend.
_LOOK = 0.2
_ASK = 5.0


class _Hearing:
    """Whether TorchServe's frontend, which runs, still answers."""

    def __init__(self, given: Settings, hung: float) -> None:
        self._given = given
        self._hung = hung
        self.heard()

    def heard(self) -> None:
        """It has answered just now."""
        self._asked = self._heard = time.monotonic()

    def silent(self) -> bool:
        """It has not answered for too long; asks it now and then."""
        if time.monotonic() - self._asked < min(_ASK, self._hung):
            return False
        self._asked = time.monotonic()
        if service.answers(self._given):
            self.heard()
        return time.monotonic() - self._heard > self._hung


def watch(
    given: Settings,
    report: Report,
    attempts: int = ATTEMPTS,
    settled: float = SETTLED,
) -> None:
    """Start again what ends, or what hangs, until another command stops the service.

    Args:
        given: the service.
        report: told what is going on, whenever that changes.
        attempts: how often in a row it tries.
        settled: seconds after which attempts are counted anew.

    Raises:
        StartError: the last attempt was in vain.
    """
    tried, last, reason = 0, float("-inf"), "it ended again each time"
    hearing = _Hearing(given, given.hang_timeout)
    while (ended := service.ended(given)) is not None:
        if not ended:
            if hearing.silent():
                report(f"TorchServe has not answered for {given.hang_timeout:g} s; ending it")
                service.kill_frontend(given)
            time.sleep(_LOOK)
            continue
        if time.monotonic() - last > settled:
            tried, reason = 0, "it ended again each time"
        if tried == attempts:
            raise StartError(
                f"{' and '.join(ended)} could not be kept running after {attempts} attempts ({reason}); the logs are "
                f"in {given.logs}, make restart tries anew"
            )
        time.sleep(given.backoff * 2 ** (tried - 1) if tried else 0.0)
        tried += 1
        begun = time.monotonic()
        try:
            if service.revive(given, report):
                report(f"ready again after {time.monotonic() - begun:.1f} s")
        except ServingError as error:
            reason = str(error)
            report(f"attempt {tried} of {attempts}: {reason}")
        last = time.monotonic()
        hearing.heard()


def begin(given: Settings) -> ProcessId:
    """Start a supervisor in the background, for a service that has just been started; it logs to ``supervisor.log``."""
    process = processes.spawn(
        NAME, [sys.executable, "-m", "serving.supervisor"], os.environ, ROOT, given.logs / "supervisor.log"
    )
    service.add(given, process)
    return process


def main() -> int:
    """Watch the service that the environment's settings name; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        watch(settings.read(), logger.info)
    except ServingError as error:
        logger.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
