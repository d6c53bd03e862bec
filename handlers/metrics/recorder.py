"""A worker's metrics of its own work.

    Classifier.handle ──► Batch ──► Recorder, four times a second ──► <folder>/<model>-<version>-<n>.counts
                                                                        └──► serving/sidecars/metrics ──► Prometheus

TorchServe has handlers print a line for each observation, which Java parses with a regular expression. Here the handler
appends to a list, and numpy adds up hundreds of observations in the time of one.
``docs/internals/performance-log.md`` compares both with ``prometheus_client``.

Only ``families`` defines the metrics. The reader takes their definition from the file
(``handlers/metrics/counter_file.py``).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from handlers import problems
from handlers.inputs import decoding, multipart
from handlers.inputs.requests import Request
from handlers.metrics import counter_file
from handlers.metrics.counter_file import Family
from handlers.outputs import encoding
from handlers.problems import Problem
from handlers.signature import Signature

logger = logging.getLogger(__name__)

# Environment variable with the folder of the counter files; a worker without it counts nothing.
VARIABLE = "FASHION_COUNTS_DIR"
# A flush holds the GIL. With a longer interval it would add up more batches, and block the serving thread longer.
_FLUSH_INTERVAL_S = 0.25
# The number of requests is the mean of these last flushes, five seconds. At one moment it says little.
_AVERAGED_FLUSHES = 20

STAGES = ("decode", "inference", "encode")
# Of batches whose requests share a pattern (Classifier._fast_path).
FAST_PATH_OUTCOMES = ("answered", "failed")
_IMAGE_FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "heic", "avif")
FORMATS = (
    *(*_IMAGE_FORMATS, "image", "raw", "npy", "json", "oip", "kserve_v1", "multipart"),
    *("form", "text", "none", "unknown"),
)
STATUSES = ("200", *(str(problem.status) for problem in problems.KINDS))
# Problems of the service itself don't count as refused requests.
REASONS = tuple(problem.type.removeprefix(problems.TYPE_PREFIX) for problem in problems.KINDS if problem.status < 500)

_STAGE_BOUNDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_CONFIDENCE_BOUNDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)

_OOD_BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0)

# Stand-ins for formats that share the content type of JSON.
_OIP = "application/x-oip"
_KSERVE_V1 = "application/x-kserve-v1"
_FORMATS_BY_TYPE = {
    **{f"image/{name}": name for name in _IMAGE_FORMATS},
    **{"image/jpg": "jpeg", "image/x-ms-bmp": "bmp", "image/x-bmp": "bmp", "image/heif": "heic"},
    **{_OIP: "oip", _KSERVE_V1: "kserve_v1"},
}


def families(signature: Signature, measures_load: bool = False) -> tuple[Family, ...]:
    """The metrics of a worker that serves this model.

    Args:
        signature: of the model.
        measures_load: whether the worker measures its load.
    """
    return (
        *_common_families(signature),
        *(_WORKER_FAMILIES if measures_load else ()),
        *(() if signature.output.activation == "none" else _prediction_families(signature)),
        *(_OOD_FAMILIES if signature.ood_threshold is not None else ()),
    )


def _common_families(signature: Signature) -> tuple[Family, ...]:
    return (
        _family(
            "fashion_requests_total",
            "counter",
            "Requests that the handler answered, by input format and status.",
            format=FORMATS,
            status=STATUSES,
        ),
        _family(
            "fashion_rejected_total",
            "counter",
            "Requests refused for an error of the caller, by the type of the problem.",
            reason=REASONS,
        ),
        _family(
            "fashion_stage_seconds",
            "histogram",
            "Seconds that a request's batch took in each stage, observed once per answered request.",
            _STAGE_BOUNDS,
            stage=STAGES,
        ),
        _family(
            "fashion_handler_seconds",
            "histogram",
            "Seconds that a request's batch took in all stages, observed once per answered request.",
            _STAGE_BOUNDS,
        ),
        _family("fashion_batch_requests", "histogram", "Requests in one batch.", _BATCH_BOUNDS),
        _family(
            "fashion_fast_path_total",
            "counter",
            "Batches of requests with the same headers, by the outcome of the fast path.",
            outcome=FAST_PATH_OUTCOMES,
        ),
        _family("fashion_executions_total", "counter", "Batches that went through the network."),
        _family("fashion_examples_total", "counter", "Images or vectors that went through the network."),
        _family("fashion_model_info", "gauge", "1 for each version.", kind=(signature.input.kind,)),
    )


def _prediction_families(signature: Signature) -> tuple[Family, ...]:
    return (
        _family(
            "fashion_predictions_total",
            "counter",
            "Examples predicted to have each label; a sigmoid model may predict several or none.",
            label=signature.output.labels,
        ),
        _family(
            "fashion_confidence",
            "histogram",
            "Probability of the prediction; for sigmoid models the mean over the labels.",
            _CONFIDENCE_BOUNDS,
        ),
        _family("fashion_model_accuracy", "gauge", "Share of the test set that the version predicts correctly."),
    )


def _family(
    name: str,
    type_: Literal["counter", "gauge", "summed_gauge", "histogram"],
    text: str,
    bounds: tuple[float, ...] = (),
    /,
    **labels: Sequence[str],
) -> Family:
    return Family(name, type_, text, tuple(labels), tuple(itertools.product(*labels.values())), bounds)


# Each worker counts in one of the two rows. The model's worker without batches has requests to itself, so its share of
# busy time says nothing about the queue.
_BATCHED = ("true", "false")
_WORKER_FAMILIES = (
    _family(
        "fashion_worker_busy_seconds_total",
        "counter",
        "Seconds in which workers did not wait for the frontend.",
        batched=_BATCHED,
    ),
    _family("fashion_worker_seconds_total", "counter", "Seconds in which workers were loaded.", batched=_BATCHED),
    # The front door adds those in TorchServe's queue (serving/sidecars/metrics/page.py).
    _family("fashion_requests_in_work", "summed_gauge", "Requests that wait for a worker or are in one."),
)
_OOD_FAMILIES = (
    _family("fashion_ood", "histogram", "Out-of-distribution score of the examples that have one.", _OOD_BOUNDS),
    _family("fashion_ood_above_total", "counter", "Examples whose score is above the model's threshold."),
)


@dataclasses.dataclass
class Batch:
    """The observations of one call of the handler.

    Attributes:
        answered: the ``content_type`` of each answered request.
        refused: the ``content_type`` of each refused request, with the class of its problem.
        seconds: duration of each of ``STAGES``; ``None`` if no request passed all of them.
        probabilities: or plain numbers, float32 ``[N, labels]``, if the network was called.
        fast_path: one of ``FAST_PATH_OUTCOMES``, if the fast path was tried.
        ood: out-of-distribution scores, float32 ``[N]`` each.
    """

    answered: list[str] = dataclasses.field(default_factory=list)
    refused: list[tuple[str, type[Problem]]] = dataclasses.field(default_factory=list)
    seconds: tuple[float, float, float] | None = None
    probabilities: NDArray[np.float32] | None = None
    fast_path: str | None = None
    ood: Sequence[NDArray[np.float32]] = ()


def content_type(request: Request, envelope: object = "plain") -> str:
    """The content type that identifies a request's format, or the stand-in for one.

    Args:
        request: one of a batch.
        envelope: of ``decoding.Decoded``, if the request could be decoded.
    """
    parts = request.parts
    if envelope != "plain":
        return _KSERVE_V1 if envelope == "predictions" else _OIP
    if len(parts) == 1:
        return parts[0].content_type
    return multipart.CONTENT_TYPE if parts else ""


@functools.lru_cache(maxsize=256)
def format_of(content_type: str) -> str:
    """The member of ``FORMATS`` for a result of the function ``content_type``."""
    kind = decoding.kind_of(content_type)
    name = content_type.partition(";")[0].strip().lower()
    return _FORMATS_BY_TYPE.get(name, "raw" if kind == "octets" else kind)


class Load(Protocol):
    """What a worker measures of itself: ``handlers.transport.pipeline.Pipeline``."""

    def busy_seconds(self) -> float:
        """Seconds so far in which the worker was busy."""

    def request_seconds(self) -> float:
        """Seconds so far that requests spent in the worker, added up."""


class Recorder:
    """Counts the batches of one worker.

    Args:
        folder: of the counter files; created if missing.
        signature: of the model that the worker serves.
        load: of the worker, if it measures it.
        batched: whether TorchServe makes batches for this worker.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        signature: Signature,
        load: Load | None = None,
        batched: bool = True,
    ) -> None:
        metrics = families(signature, load is not None)
        self._counts = counter_file.claim(folder, signature.model, signature.version, metrics)
        self._load = load
        self._row = _BATCHED.index("true" if batched else "false")
        # The busy seconds so far and the seconds in all that are counted.
        self._counted_busy_seconds, self._counted_at = 0.0, time.monotonic()
        # Of the last flushes: the time, and the requests' seconds so far.
        self._request_seconds = collections.deque([(self._counted_at, 0.0)], _AVERAGED_FLUSHES + 1)
        self._activation = signature.output.activation
        self._ood_threshold = 1.0 if signature.ood_threshold is None else signature.ood_threshold
        self._counts["fashion_model_info"][:] = 1
        if self._activation != "none":
            self._counts["fashion_model_accuracy"][:] = signature.scored.get("test_accuracy", math.nan)
        self._batches: collections.deque[Batch] = collections.deque()

    def add(self, batch: Batch) -> None:
        """Have a batch counted at the next flush."""
        self._batches.append(batch)

    def run(self) -> None:
        """Flush at intervals, until the process ends."""
        while True:
            time.sleep(_FLUSH_INTERVAL_S)
            try:
                self.flush()
            except Exception:
                logger.exception("Some requests could not be counted")

    def flush(self) -> None:
        """Add the batches and the busy time since the last flush to the numbers in the file."""
        if self._load:
            self._count_load(self._load)
        batches = [self._batches.popleft() for _ in range(len(self._batches))]
        if not batches:
            return
        self._add_requests(batches)
        sizes = np.array([len(batch.answered) + len(batch.refused) for batch in batches], np.float64)
        # A batch of description requests only has size 0.
        _observe(self._counts["fashion_batch_requests"][0], _BATCH_BOUNDS, sizes[sizes > 0])
        outcomes = [batch.fast_path for batch in batches]
        self._counts["fashion_fast_path_total"][:, 0] += [outcomes.count(outcome) for outcome in FAST_PATH_OUTCOMES]
        timed = [batch for batch in batches if batch.seconds]
        answered = np.array([len(batch.answered) for batch in timed], np.float64)
        seconds = np.array([batch.seconds for batch in timed], np.float64).reshape(-1, len(STAGES))
        for histogram, durations in zip(self._counts["fashion_stage_seconds"], seconds.T, strict=True):
            _observe(histogram, _STAGE_BOUNDS, durations, answered)
        _observe(self._counts["fashion_handler_seconds"][0], _STAGE_BOUNDS, seconds.sum(1), answered)
        probabilities = [batch.probabilities for batch in batches if batch.probabilities is not None]
        if probabilities:
            self._counts["fashion_executions_total"] += len(probabilities)
            self._add_predictions(np.concatenate(probabilities))
        scores = [scores for batch in batches for scores in batch.ood]
        if scores:
            self._add_ood(np.concatenate(scores))

    def _count_load(self, load: Load) -> None:
        busy, requests, now = load.busy_seconds(), load.request_seconds(), time.monotonic()
        self._counts["fashion_worker_busy_seconds_total"][self._row] += busy - self._counted_busy_seconds
        self._counts["fashion_worker_seconds_total"][self._row] += now - self._counted_at
        self._counted_busy_seconds, self._counted_at = busy, now
        self._request_seconds.append((now, requests))
        (began, before), *_ = self._request_seconds
        self._counts["fashion_requests_in_work"][:] = (requests - before) / max(now - began, 1e-9)

    def _add_requests(self, batches: Sequence[Batch]) -> None:
        requests = self._counts["fashion_requests_total"].reshape(len(FORMATS), len(STATUSES))
        answered = collections.Counter(itertools.chain.from_iterable(batch.answered for batch in batches))
        for type_, count in answered.items():
            requests[FORMATS.index(format_of(type_)), 0] += count
        for type_, problem in itertools.chain.from_iterable(batch.refused for batch in batches):
            requests[FORMATS.index(format_of(type_)), STATUSES.index(str(problem.status))] += 1
            reason = problem.type.removeprefix(problems.TYPE_PREFIX)
            if reason in REASONS:
                self._counts["fashion_rejected_total"][REASONS.index(reason), 0] += 1

    def _add_ood(self, scores: NDArray[np.float32]) -> None:
        _observe(self._counts["fashion_ood"][0], _OOD_BOUNDS, scores)
        self._counts["fashion_ood_above_total"] += (scores > self._ood_threshold).sum()

    def _add_predictions(self, probabilities: NDArray[np.float32]) -> None:
        # A request's values can overflow the network, and one NaN would make the sum NaN forever.
        finite = probabilities[np.isfinite(probabilities).all(1)]
        self._counts["fashion_examples_total"] += len(finite)
        if self._activation == "none":
            return
        if self._activation == "softmax":
            predicted = np.bincount(finite.argmax(1), minlength=finite.shape[1])
            confidence = finite.max(1)
        else:
            predicted = (finite >= encoding.THRESHOLD).sum(0)
            confidence = np.maximum(finite, 1 - finite).mean(1)
        self._counts["fashion_predictions_total"][:, 0] += predicted
        _observe(self._counts["fashion_confidence"][0], _CONFIDENCE_BOUNDS, confidence)


def open_recorder(signature: Signature, load: Load | None = None, batched: bool = True) -> Recorder | None:
    """Start a recorder in the folder from the environment; ``None`` without a folder, or if it cannot be used.

    Args:
        signature, load, batched: as for ``Recorder``.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    try:
        recorder = Recorder(Path(folder), signature, load, batched)
    except OSError as error:
        logger.warning("This worker's requests are not counted: cannot use %s=%s: %s", VARIABLE, folder, error)
        return None
    threading.Thread(target=recorder.run, name="metrics", daemon=True).start()
    return recorder


def _observe(
    histogram: NDArray[np.float64],
    bounds: Sequence[float],
    values: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> None:
    """Add values to a histogram: the buckets' counts, up to each of ``bounds`` and above, and then the sum."""
    buckets = np.bincount(np.searchsorted(bounds, values), weights, minlength=len(bounds) + 1)
    histogram[:-1] += buckets
    histogram[-1] += values.sum(dtype=np.float64) if weights is None else values @ weights
