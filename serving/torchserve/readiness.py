"""Readiness: every worker of every model accepts requests, and each model passes its golden check.

TorchServe's ``/ping`` is not used, because it reports Healthy while workers are still loading.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from serving.errors import StartError, UnreachableError
from serving.settings import Settings
from serving.store.archives import Archive
from serving.torchserve import golden_check, management
from serving.torchserve.management import Model, Worker

# A start checks a few of an archive's golden examples: enough to notice a wrong network, in milliseconds.
_GOLDEN_EXAMPLES = 16

# An argument of each worker's command line is the path of its socket.
_WORKER_SOCKET = re.compile(r"\.ts\.sock\.(\d+)$", re.MULTILINE)
# Lines of a log that an error message quotes: enough for a traceback.
_LOG_LINES = 20

# The frontend writes a dead worker's last lines a moment later, or later still on a busy machine.
_LOG_POLL_INTERVAL_S = 0.2
_LOG_POLLS = 20
# The lines count as complete after this many equal polls.
_EQUAL_LOG_POLLS = 7


def last_lines(path: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a text file; empty if the file does not exist."""
    with suppress(OSError):
        if path.is_file():
            return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    return ""


def worker_lines(path: Path, worker: str, count: int = _LOG_LINES) -> str:
    """The last lines that one worker printed, without time and thread.

    Args:
        path: ``workers.log``.
        worker: TorchServe's number of the worker.
        count: maximum number of lines.
    """
    line = re.compile(rf"\S+ W-{worker}-\S+-std(?:out|err) (.*)")
    printed = last_lines(path, sys.maxsize).splitlines()
    return "\n".join([match[1] for match in map(line.fullmatch, printed) if match][-count:])


class LoadingWorkers:
    """Detects a worker that ends while it loads its model. In the management API it looks like a loading worker.

    It works only in the supervisor, where rollouts run too, because it searches for the workers among the descendants
    of its own process.

    Args:
        log: ``workers.log``.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen: dict[str, set[int]] = {}

    def check(self, models: Iterable[Model]) -> None:
        """Compare the workers of these models with those of the previous call.

        Raises:
            StartError: a worker ended before it was ready; the message has its output.
        """
        processes = _worker_processes()
        for model in models:
            for worker in model.workers:
                if not worker.ready and self._ended(worker, processes.get(worker.id)):
                    raise StartError(
                        f"a worker of {model.name} {model.version} ended while it loaded the model; the end of its "
                        f"output ({self._log}):\n{self._last_output(worker.id)}"
                    )

    def _ended(self, worker: Worker, pid: int | None) -> bool:
        seen = self._seen.setdefault(worker.id, set())
        if pid is not None:
            seen.add(pid)
        # A forked worker may start and end between two calls. The API keeps its pid until the next one reports its own.
        dead = worker.pid > 0 and not psutil.pid_exists(worker.pid)
        return dead or len(seen) > 1 or (bool(seen) and pid is None)

    def _last_output(self, worker: str) -> str:
        """Its last lines in the log, as soon as they are complete."""
        lines, equal_polls = worker_lines(self._log, worker), 1
        for _ in range(_LOG_POLLS):
            if lines and equal_polls >= _EQUAL_LOG_POLLS:
                break
            time.sleep(_LOG_POLL_INTERVAL_S)
            previous, lines = lines, worker_lines(self._log, worker)
            equal_polls = equal_polls + 1 if lines == previous else 1
        return lines


def _worker_processes() -> dict[str, int]:
    """The pids of the workers, or of their launchers, by TorchServe's number of the worker."""
    pids: dict[str, int] = {}
    # The first match is the worker: it precedes its own children, whose command lines may equal its own.
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if match := _WORKER_SOCKET.search("\n".join(process.cmdline())):
                pids.setdefault(match[1], process.pid)
    return pids


class FrontendProbe:
    """The readiness probe of a starting frontend; the supervisor calls it until it returns ``None``.

    Args:
        settings: of the service.
        archives: the archives that the frontend loads.
    """

    def __init__(self, settings: Settings, archives: Sequence[Archive]) -> None:
        self._settings = settings
        self._archives = archives
        self._management = management.of_service(settings)
        self._loading = LoadingWorkers(settings.log("workers.log"))
        self._registered_all = False

    def __call__(self) -> str | None:
        """The current step of the start, or ``None`` when everything is ready.

        Raises:
            StartError: an archive was refused, a worker ended while loading or is not on the required GPU, or a golden
                check failed.
        """
        try:
            models = self._management.models()
        except UnreachableError:
            return "starting TorchServe"
        registered = {(model.name, model.version) for model in models}
        for archive in self._archives:
            if (archive.model, archive.version) not in registered:
                log = self._settings.log("frontend.log")
                raise StartError(f"TorchServe refused {archive.path}; the end of {log}:\n{last_lines(log)}")
        if not self._registered_all:
            # The frontend has loaded only the registrations with batches, because load_models names no batch size.
            for archive in self._archives:
                self._management.register(archive)
            self._registered_all = True
            models = self._management.models()
        self._loading.check(models)
        loading = [f"{model.name} {model.version}" for model in models if not model.ready]
        if loading:
            return f"loading {', '.join(loading)} ({len(models) - len(loading)} of {len(models)} models ready)"
        if self._settings.device_type == "gpu" and not all(worker.gpu for model in models for worker in model.workers):
            raise StartError("FASHION_DEVICE_TYPE is gpu, but TorchServe found no GPU; check that nvidia-smi works")
        for archive in self._archives:
            golden_check.run(self._settings, archive, _GOLDEN_EXAMPLES)
        return None
