"""One part of the service as a child process of the supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from serving import Report, polling
from serving.errors import StartError
from serving.settings import Settings
from serving.supervisor.parts import Part
from serving.torchserve.readiness import last_lines

# Short against the default FASHION_HANG_TIMEOUT of 20 s, and rare enough to cost nothing.
_LIVENESS_PAUSE_S = 5.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """One part and its process.

    Args:
        make: returns a new part; called for each start.
        settings: of the service.
        report: receives the progress of a start.
        changed: called after the process has started, become ready, or ended.

    Attributes:
        part: the part that ``make`` returned last.
    """

    def __init__(
        self, make: Callable[[Report], Part], settings: Settings, report: Report, changed: Callable[[], None]
    ) -> None:
        self._make, self._settings, self._report, self._changed = make, settings, report, changed
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False
        self.part = make(report)

    @property
    def pid(self) -> int | None:
        """The pid of the process, while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def ready(self) -> bool:
        """Whether the process has become ready, and runs."""
        return self._was_ready and self.pid is not None

    async def start(self) -> None:
        """Start the part and wait until it is ready. After an error nothing is left running.

        Raises:
            StartError: the process ended, or was not ready in time.
            OSError: the program cannot be started.
        """
        part, parent = self.part, os.getpid()
        self._was_ready = False
        part.output.parent.mkdir(parents=True, exist_ok=True)
        with part.output.open("ab") as output:
            spawning = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *part.command,
                    env=part.environment,
                    cwd=part.folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    # A session of its own: no Ctrl-C or SIGHUP from the terminal, and a process group to kill.
                    start_new_session=True,
                    preexec_fn=lambda: _end_with(parent, part.death_signal),
                )
            )
            try:
                self._process = await asyncio.shield(spawning)
            except asyncio.CancelledError:
                # The process may run already. asyncio would kill it alone, without its group.
                self._process = await spawning
                await self.end(0)
                raise
        self._changed()
        try:
            await self._become_ready(self._process)
        except BaseException:
            await self.end(0)
            raise
        self._was_ready = True
        self._changed()

    async def restart(self) -> None:
        """Like ``start``, with a new part. Raises the errors of ``make`` too."""
        self.part = await asyncio.to_thread(self._make, self._report)
        await self.start()

    async def lost(self) -> str:
        """Wait until the process has ended, or kill it when it hangs; the reason, as a clause."""
        assert self._process is not None
        ended, hung = asyncio.create_task(self._process.wait()), asyncio.create_task(self._hung())
        try:
            await asyncio.wait([ended, hung], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            hung.cancel()
        outcome = f"did not answer for {self._settings.hang_timeout:g} s and was killed"
        if ended.done() and not ended.cancelled():
            code = ended.result()
            outcome = f"ended unexpectedly ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        await self.end(0)
        return f"{self.part.name} {outcome}"

    def signal(self, number: int) -> None:
        """Send the process a signal, if it runs."""
        # It may end between the check and the signal.
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    async def end(self, grace: float) -> None:
        """Ask the process to stop; after at most ``grace`` seconds (``supervisor.py``) kill its process group."""
        if self._process is None:
            return
        if grace and self.pid:
            self.signal(self.part.stop_signal)
            # A suspended process handles the signal when it continues.
            self._signal_group(signal.SIGCONT)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        self._signal_group(signal.SIGKILL)
        await self._process.wait()
        self._changed()

    async def _become_ready(self, process: asyncio.subprocess.Process) -> None:
        name, output, timeout = self.part.name, self.part.output, self._settings.start_timeout
        begun, reported = time.monotonic(), None
        while (status := await asyncio.to_thread(self.part.probe)) is not None:
            if status != reported:
                self._report(status)
                reported = status
            if process.returncode is not None:
                raise StartError(f"{name} ended while starting; last lines of {output}:\n{last_lines(output)}")
            if time.monotonic() - begun > timeout:
                raise StartError(f"{name} was not ready after {timeout:g} s ({status}); see {output.parent}")
            await asyncio.sleep(polling.INTERVAL_S)

    async def _hung(self) -> None:
        """Return when the part has not answered a liveness request for the hang timeout."""
        answered = time.monotonic()
        while time.monotonic() - answered <= self._settings.hang_timeout:
            await asyncio.sleep(min(_LIVENESS_PAUSE_S, self._settings.hang_timeout))
            if await asyncio.to_thread(self.part.answers):
                answered = time.monotonic()

    def _signal_group(self, number: int) -> None:
        assert self._process is not None
        # On macOS killpg fails with EPERM if the group has just ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _end_with(parent: int, number: int) -> None:
    """In a new child: let Linux signal it when the supervisor ends (prctl(2))."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)
