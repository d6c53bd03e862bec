"""One part of the service as a child process of the supervisor: started, watched, ended with all that it started."""

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

# Pause between two liveness requests.
_LIVENESS_PAUSE_S = 5.0
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """One part and its process.

    Args:
        make: makes the part, anew for each start.
        given: the settings.
        report: told what is going on.
        changed: called when its process has started or ended.

    Attributes:
        part: as it was last made.
    """

    def __init__(
        self, make: Callable[[Report], Part], given: Settings, report: Report, changed: Callable[[], None]
    ) -> None:
        self._make, self._given, self._report, self._changed = make, given, report, changed
        self._process: asyncio.subprocess.Process | None = None
        self.part = make(report)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready; what is not ready in the end is ended again.

        Raises:
            StartError: it ended, or was not ready in time.
            OSError: it cannot be started.
        """
        part, parent = self.part, os.getpid()
        part.output.parent.mkdir(parents=True, exist_ok=True)
        with part.output.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *part.command,
                env=part.environment,
                cwd=part.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                # Neither Ctrl-C nor a closed terminal reaches it, and its group can be killed as a whole.
                start_new_session=True,
                preexec_fn=lambda: _end_with(parent, part.death_signal),
            )
        self._changed()
        try:
            await self._become_ready(self._process)
        except BaseException:
            await self.end(0)
            raise

    async def start_again(self) -> None:
        """As ``start``, with the part made anew; raises what its making raises, too."""
        self.part = await asyncio.to_thread(self._make, self._report)
        await self.start()

    async def lost(self) -> str:
        """Wait until it has ended, or was killed for answering nothing for too long; the reason, as a sentence."""
        assert self._process is not None
        ended, silent = asyncio.create_task(self._process.wait()), asyncio.create_task(self._silent())
        try:
            await asyncio.wait([ended, silent], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            silent.cancel()
        outcome = f"has not answered for {self._given.hang_timeout:g} s; ended it"
        if ended.done() and not ended.cancelled():
            code = ended.result()
            outcome = f"ended by itself ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        await self.end(0)
        return f"{self.part.name} {outcome}"

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        # It may have ended just now.
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    async def end(self, grace: float) -> None:
        """Ask it to end, and kill it and its group after ``grace`` seconds."""
        if self._process is None:
            return
        if grace and self.pid:
            self.signal(self.part.stop_signal)
            # What is suspended takes the signal when it goes on.
            self._signal_group(signal.SIGCONT)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        self._signal_group(signal.SIGKILL)
        await self._process.wait()
        self._changed()

    async def _become_ready(self, process: asyncio.subprocess.Process) -> None:
        name, output, timeout = self.part.name, self.part.output, self._given.start_timeout
        begun, said = time.monotonic(), None
        while (doing := await asyncio.to_thread(self.part.probe)) is not None:
            if doing != said:
                self._report(doing)
                said = doing
            if process.returncode is not None:
                raise StartError(f"{name} ended while starting; the end of {output}:\n{last_lines(output)}")
            if time.monotonic() - begun > timeout:
                raise StartError(f"{name} was not ready after {timeout:g} s ({doing}); see the logs in {output.parent}")
            await asyncio.sleep(polling.INTERVAL_S)

    async def _silent(self) -> None:
        """Return when it has answered nothing for the hang timeout."""
        answered = time.monotonic()
        while time.monotonic() - answered <= self._given.hang_timeout:
            await asyncio.sleep(min(_LIVENESS_PAUSE_S, self._given.hang_timeout))
            if await asyncio.to_thread(self.part.answers):
                answered = time.monotonic()

    def _signal_group(self, number: int) -> None:
        assert self._process is not None
        # macOS permits no signal to a group that has just ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _end_with(parent: int, number: int) -> None:
    """In a new child: have the system send it a signal when the supervisor ends (prctl(2))."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)
