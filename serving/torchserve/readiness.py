"""Ready means: every worker of every model takes requests, and a prediction of each model is right.

``/ping`` says Healthy while workers are still loading, so it is not asked.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil

from serving import loopback
from serving.errors import StartError, UnreachableError
from serving.settings import Settings
from serving.store.archives import Archive
from serving.torchserve import management, tokens
from serving.torchserve.management import Model, Worker

# Golden inputs that one check sends, and how far its probabilities may be from the known ones.
_EXAMPLES = 16
_TOLERANCE = 1e-4

_SOCKET = re.compile(r"\.ts\.sock\.(\d+)$", re.MULTILINE)
_LOG_LINES = 20
_ANSWER_TIMEOUT = 30.0


def last_lines(path: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a text file; empty where there is none."""
    with suppress(OSError):
        if path.is_file():
            return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    return ""


def worker_lines(path: Path, worker: str, count: int = _LOG_LINES) -> str:
    """The last lines that one worker printed, without time and thread.

    Args:
        path: ``workers.log``.
        worker: TorchServe's number of the worker.
        count: how many lines at most.
    """
    line = re.compile(rf"\S+ W-{worker}-\S+-std(?:out|err) (.*)")
    printed = last_lines(path, sys.maxsize).splitlines()
    return "\n".join([found[1] for found in map(line.fullmatch, printed) if found][-count:])


class LoadingWorkers:
    """Reports a worker that ends while it loads its model; the API shows it like a worker that still loads.

    Works in the supervisor alone, because it looks for the worker processes among its own descendants.

    Args:
        log: ``workers.log``.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen: dict[str, set[int]] = {}

    def check(self, models: Iterable[Model]) -> None:
        """Compare the workers of these models with the last call.

        Raises:
            StartError: a worker ended before it was ready; the message has what it printed.
        """
        processes = _worker_processes()
        for model in models:
            for worker in model.workers:
                if not worker.ready and self._ended(worker, processes.get(worker.id)):
                    raise StartError(
                        f"a worker of {model.name} {model.version} ended while it loaded the model; the end of what "
                        f"it printed ({self._log}):\n{self._settled_lines(worker.id)}"
                    )

    def _ended(self, worker: Worker, pid: int | None) -> bool:
        seen = self._seen.setdefault(worker.id, set())
        if pid is not None:
            seen.add(pid)
        # A forked worker may end between two calls; the API keeps its number until the next one has told its own.
        gone = worker.pid > 0 and not psutil.pid_exists(worker.pid)
        return gone or len(seen) > 1 or (bool(seen) and pid is None)

    def _settled_lines(self, worker: str) -> str:
        """Its last lines, which the frontend writes a moment after its end, or later on a busy machine."""
        looks = [worker_lines(self._log, worker)]
        while len(looks) <= 20 and not (looks[-1] and looks[-7:] == [looks[-1]] * 7):
            time.sleep(0.2)
            looks.append(worker_lines(self._log, worker))
        return looks[-1]


def _worker_processes() -> dict[str, int]:
    """The workers' processes, or the launchers that stand for them: TorchServe's number to pid."""
    found: dict[str, int] = {}
    # A worker precedes its own children, whose command lines may equal its own.
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if match := _SOCKET.search("\n".join(process.cmdline())):
                found.setdefault(match[1], process.pid)
    return found


def check_prediction(settings: Settings, archive: Archive, count: int = _EXAMPLES) -> None:
    """Ask for predictions of known answers, if the archive has some.

    Args:
        settings: of the service.
        archive: the model version to ask.
        count: how many known answers to compare with, at most.

    Raises:
        StartError: no answer, another status than 200, or other probabilities.
    """
    golden = archive.golden
    if golden is None:
        return
    who = f"{archive.model} {archive.version}"
    body = io.BytesIO()
    np.save(body, golden.inputs[:count])
    form = "application/x-npy"
    headers = {"Content-Type": form, "Accept": form, **tokens.headers(settings, "inference")()}
    url = f"{settings.inference.url}/predictions/{archive.model}/{archive.version}"
    with loopback.client(_ANSWER_TIMEOUT) as client:
        try:
            answer = client.post(url, content=body.getvalue(), headers=headers)
        except httpx.HTTPError as error:
            raise StartError(f"{who} does not answer: {error}") from error
    if answer.status_code != 200:
        raise StartError(f"{who} answered a known input with {answer.status_code}: {answer.text[:500]}")
    wanted = golden.probabilities[:count]
    try:
        given = np.load(io.BytesIO(answer.content), allow_pickle=False)
    except ValueError:
        kind = answer.headers.get("Content-Type", "none")
        raise StartError(
            f"{who} answered a known input in another format (Content-Type: {kind}) than asked for: its "
            "handler must answer Accept: application/x-npy with the probabilities as a .npy file"
        ) from None
    if given.shape != wanted.shape or not np.allclose(given, wanted, rtol=0, atol=_TOLERANCE):
        raise StartError(
            f"{who} answered a known input with other probabilities than in training; "
            f"{archive.path} is not what was trained, run: make archive"
        )


class FrontendProbe:
    """Looks at a starting frontend again and again until it is ready.

    Args:
        settings: where it listens and logs.
        archives: what it is to load.
    """

    def __init__(self, settings: Settings, archives: Sequence[Archive]) -> None:
        self._settings = settings
        self._archives = archives
        self._management = management.of_service(settings)
        self._loading = LoadingWorkers(settings.log("workers.log"))

    def __call__(self) -> str | None:
        """What is still going on, or ``None`` when everything is ready.

        Raises:
            StartError: an archive was refused, a worker ended while loading or is not on the GPU that it must be on,
                or a prediction was wrong.
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
        self._loading.check(models)
        loading = [f"{model.name} {model.version}" for model in models if not model.ready]
        if loading:
            return f"loading {', '.join(loading)} ({len(models) - len(loading)} of {len(models)} models ready)"
        if self._settings.device_type == "gpu" and not all(worker.gpu for model in models for worker in model.workers):
            raise StartError("FASHION_DEVICE_TYPE=gpu, but TorchServe finds no GPU here; does nvidia-smi work?")
        for archive in self._archives:
            check_prediction(self._settings, archive)
        return None
