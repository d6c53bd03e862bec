"""TorchServe in a container: the frontend, and what it lacks for one.

    python -m serving.containers.torchserve

    live archives whole ─► frontend ─► every worker READY, predictions right ─► `ready` is touched every two seconds
                              │                  │
                              │                  └─ not in time, or no longer for as long ─► end, exit code 1
                              ├─ it ends by itself ─► exit code 1
                              └─ SIGTERM ─► `ready` is removed ─► nothing left to answer ─► end, exit code 0

The frontend alone would be a bad container. Told to end, it closes every connection at once, with requests in flight
(``ModelServer.stop``: Netty's ``shutdownGracefully`` begins by closing all channels). And where its workers cannot
start it tries for ever, and lingers. So the init that stands between the engine's signals and the JVM is this.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from serving import archives as archive_files
from serving import jvm, live, management, service, settings, tokens, worker_counts
from serving.archives import Archive
from serving.errors import ServingError, StartError
from serving.management import Model
from serving.processes import ProcessId
from serving.readiness import check_prediction
from serving.service import Part
from serving.settings import Settings

logger = logging.getLogger("serving.containers.torchserve")

READY = "ready"

# Seconds between two looks at the workers. The health check takes `ready` for stale after 10.
_LOOK = 2.0
# Seconds between two predictions of known answers, which count like any others. Not at each look: a network does not
# change while its process runs, but a worker may hang.
_ASK = 30.0
_EXAMPLES = 1
# Seconds that requests in flight may take when the container is stopped; longer than any batch takes on a CPU.
_DRAIN = 10.0
# Seconds of which a worker that computes takes more than a twentieth.
_IDLE = 0.5
_IDLE_SHARE = 0.05
# Seconds that the frontend may take to end.
_GRACE = 15.0


class Keeper:
    """Keeps one frontend.

    Args:
        given: the settings.
        stopping: set when the container is to end.
    """

    def __init__(self, given: Settings, stopping: threading.Event) -> None:
        self._given = given
        self._stopping = stopping
        self._management = management.of_service(given)
        self._keys = tokens.given_by(given)
        self._ready = given.run / READY
        self._asked = -math.inf
        self._workers: set[tuple[str, int]] = set()
        self._archives: dict[tuple[str, str], Archive] = {}

    def run(self) -> None:
        """Start the frontend and keep it until it is told to end.

        Raises:
            ServingError: it cannot be started, has ended, or its workers do not come up; nothing is left running.
        """
        given = self._given
        for folder in (given.run, given.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._ready.unlink(missing_ok=True)
        settled, archives = service.live_archives(given, logger.warning)
        self._archives = {(archive.model, archive.version): archive for archive in archives}
        scratch = jvm.make_scratch()
        begun = time.monotonic()
        worker_counts.clear(given.counts)
        part = service.frontend(given, archives, scratch)
        # Not kept: without it TorchServe starts workers by itself, which takes longer.
        beside = [_popen(each) for each in service.fork_server(given, scratch)]
        child = _popen(part)
        try:
            if self._start(child, part):
                live.write(given.run, settled)
                names = ", ".join(f"{archive.model} {archive.version}" for archive in archives)
                logger.info("ready after %.1f s: %s", time.monotonic() - begun, names)
                self._watch(child)
        finally:
            self._ready.unlink(missing_ok=True)
            _end(child, service.FRONTEND)
            for each in beside:
                _end(each, service.FORK_SERVER)
            shutil.rmtree(scratch, ignore_errors=True)

    def _start(self, child: subprocess.Popen[bytes], part: Part) -> bool:
        """Wait until everything is ready; whether it is, or the container is to end before."""
        process = ProcessId(part.name, child.pid, psutil.Process(child.pid).create_time())
        deadline = time.monotonic() + self._given.start_timeout
        while (doing := part.probe(process)) is not None:
            self._check_alive(child)
            if time.monotonic() > deadline:
                raise StartError(f"TorchServe was not ready after {self._given.start_timeout:g} s ({doing})")
            if self._stopping.wait(0.25):
                return False
        return True

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Return when the container is to end and nothing is left to answer."""
        last_ready = time.monotonic()
        while not self._stopping.is_set():
            self._check_alive(child)
            if reason := self._unready():
                self._ready.unlink(missing_ok=True)
                logger.warning("not ready: %s", reason)
                if time.monotonic() - last_ready > self._given.start_timeout:
                    raise StartError(f"not ready for {self._given.start_timeout:g} s: {reason}")
            else:
                self._ready.touch()
                last_ready = time.monotonic()
            self._stopping.wait(_LOOK)
        self._ready.unlink(missing_ok=True)
        self._drain(child)

    def _unready(self) -> str | None:
        """Why the service is not ready; ``None`` if it is."""
        try:
            models = self._management.models()
        except ServingError as error:
            return str(error)
        waiting = [f"{model.name} {model.version}" for model in models if not model.ready]
        if waiting or not models:
            return f"no worker, or not all, for {', '.join(waiting) or 'any model'}"
        workers = {(worker.id, worker.pid) for model in models for worker in model.workers}
        if workers != self._workers or time.monotonic() - self._asked > _ASK:
            try:
                self._ask(models)
            except ServingError as error:
                return str(error)
            self._workers, self._asked = workers, time.monotonic()
        return None

    def _ask(self, models: Sequence[Model]) -> None:
        """See that each model gives a known answer."""
        versions = {(model.name, model.version) for model in models}
        if not versions <= self._archives.keys():
            # Deployed since.
            stored = archive_files.read_store(self._given.model_store)
            self._archives = {(archive.model, archive.version): archive for archive in stored}
        for version in versions & self._archives.keys():
            archive = self._archives[version]
            if archive.golden:
                token = self._keys.inference() if self._keys else None
                check_prediction(self._given.inference.url, archive, archive.golden, _EXAMPLES, token)

    def _check_alive(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is not None:
            raise StartError(f"TorchServe's frontend ended by itself, with {child.returncode}")

    def _drain(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until no request waits and no worker computes.

        Whoever sends requests here may take a moment to learn that this is not ready; what comes is answered.
        """
        begun = time.monotonic()
        before: float | None = None
        while time.monotonic() - begun < _DRAIN and child.poll() is None:
            with suppress(ServingError):
                models = self._management.models()
                now = _busy_seconds(models)
                queued = sum(model.queued for model in models)
                if before is not None and queued == 0 and now - before < _IDLE * _IDLE_SHARE:
                    logger.info("nothing left to answer after %.1f s", time.monotonic() - begun)
                    return
                before = now
            time.sleep(_IDLE)
        logger.warning("still busy after %g s", _DRAIN)


def _popen(part: Part) -> subprocess.Popen[bytes]:
    return subprocess.Popen(part.command, env=part.environment, cwd=part.folder)


def _end(child: subprocess.Popen[bytes], name: str) -> None:
    child.terminate()
    try:
        child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        logger.warning("%s did not end within %g s", name, _GRACE)
        child.kill()
        child.wait()


def _busy_seconds(models: Sequence[Model]) -> float:
    """The time that the models' workers have computed so far."""
    seconds = 0.0
    for model in models:
        for worker in model.workers:
            # One that is starting has no number yet.
            with suppress(psutil.Error, ValueError):
                times = psutil.Process(worker.pid).cpu_times()
                seconds += times.user + times.system
    return seconds


def main() -> int:
    """Keep a frontend with the environment's settings; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        Keeper(settings.read(), stopping).run()
    except ServingError as error:
        logger.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
