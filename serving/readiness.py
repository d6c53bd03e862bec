"""Ready means: every worker of every model takes requests, and a prediction of each model is right.

``/ping`` says Healthy while workers are still loading, so it is not asked.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil

from serving import loopback, management, tokens
from serving.archives import Archive, Golden
from serving.errors import StartError, UnreachableError
from serving.management import Model, Worker
from serving.settings import Settings

# Golden inputs that one check sends, and how far its probabilities may be from the known ones.
_EXAMPLES = 16
_TOLERANCE = 1e-4

_SOCKET = re.compile(r"\.ts\.sock\.(\d+)$")
_LOG_LINES = 20
_ANSWER_TIMEOUT = 30.0


def last_lines(path: Path, count: int = _LOG_LINES) -> str:
    """The last lines of a text file; empty where there is none."""
    try:
        if not path.is_file():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
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


def settled_lines(path: Path, worker: str) -> str:
    """``worker_lines`` of a worker that has just ended: the frontend writes its last lines a moment later."""
    lines, unchanged = worker_lines(path, worker), 0
    for _ in range(20):
        time.sleep(0.2)
        before, lines = lines, worker_lines(path, worker)
        unchanged = unchanged + 1 if lines and lines == before else 0
        # A busy machine's frontend is late with what it logs.
        if unchanged == 3:
            break
    return lines


def check_prediction(
    url: str, archive: Archive, golden: Golden, count: int = _EXAMPLES, token: str | None = None
) -> None:
    """Ask for predictions of known answers.

    Args:
        url: the inference API.
        archive: the model version to ask.
        golden: its known answers.
        count: how many of them, at most.
        token: the bearer token that the API asks for, if it does.

    Raises:
        StartError: no answer, another status than 200, or other probabilities.
    """
    who = f"{archive.model} {archive.version}"
    body = io.BytesIO()
    np.save(body, golden.inputs[:count])
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    with loopback.client(_ANSWER_TIMEOUT) as client:
        try:
            answer = client.post(
                f"{url}/predictions/{archive.model}/{archive.version}", content=body.getvalue(), headers=headers
            )
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
        self._token = tokens.of(settings, "inference")
        self._seen: dict[str, set[int]] = {}

    def __call__(self, frontend: int) -> str | None:
        """What is still going on, or ``None`` when everything is ready.

        Args:
            frontend: its pid.

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
        running = self._running_workers(frontend)
        for model in models:
            for worker in model.workers:
                self._check_worker(model, worker, running.get(worker.id))
        loading = [f"{model.name} {model.version}" for model in models if not model.ready]
        if loading:
            return f"loading {', '.join(loading)} ({len(models) - len(loading)} of {len(models)} models ready)"
        if self._settings.device_type == "gpu" and not all(worker.gpu for model in models for worker in model.workers):
            raise StartError("FASHION_DEVICE_TYPE=gpu, but TorchServe finds no GPU here; does nvidia-smi work?")
        for archive in self._archives:
            if archive.golden:
                check_prediction(self._settings.inference.url, archive, archive.golden, token=self._token())
        return None

    def _running_workers(self, frontend: int) -> dict[str, int]:
        """The frontend's worker processes, or the launchers that stand for them: TorchServe's number to pid."""
        found = {}
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(frontend).children():
                with suppress(psutil.Error):
                    for word in child.cmdline():
                        if socket := _SOCKET.search(word):
                            found[socket[1]] = child.pid
        return found

    def _check_worker(self, model: Model, worker: Worker, pid: int | None) -> None:
        # The API shows a worker that has died, and is about to be started again, like one that is loading.
        if worker.ready:
            return
        seen = self._seen.setdefault(worker.id, set())
        if pid is not None:
            seen.add(pid)
        # One that was forked may end between two looks; the API keeps its number until the next one has told its own.
        gone = worker.pid > 0 and not psutil.pid_exists(worker.pid)
        if gone or len(seen) > 1 or (seen and pid is None):
            log = self._settings.log("workers.log")
            raise StartError(
                f"a worker of {model.name} {model.version} ended while it loaded the model; the end of what it "
                f"printed ({log}):\n{settled_lines(log, worker.id)}"
            )
