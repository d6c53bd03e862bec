"""What a worker counts of its own work.

    Classifier.handle ──► Batch ──► Recorder, four times a second ──► <folder>/<model>-<version>-<n>.counts
                                                                        └──► serving/sidecars/metrics ──► Prometheus

TorchServe's way for a handler's metrics is a printed line for each observation, which Java takes apart with a regular
expression. Here an observation is a place in a list, and adding up hundreds of them at once takes numpy as long as
one. Figures of both, and of ``prometheus_client``, are in ``docs/monitoring.md``.

What is counted stands in ``families`` alone; the reader learns it from the file (``handlers/metrics/counter_file.py``).
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
from typing import Any, Literal

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

# The folder of the files; a worker without it counts nothing.
VARIABLE = "FASHION_COUNTS_DIR"
# Seconds between two times of adding up. Longer would let the serving thread wait longer for the other.
_INTERVAL = 0.25

STAGES = ("decode", "inference", "encode")
# Of batches whose requests are alike (Classifier._answer_alike).
FAST_PATH_OUTCOMES = ("answered", "failed")
FORMATS = (
    *("png", "jpeg", "webp", "gif", "bmp", "image", "raw", "npy", "json", "oip", "kserve_v1", "multipart"),
    *("form", "text", "none", "unknown"),
)
STATUSES = ("200", *(str(problem.status) for problem in problems.KINDS))
# The service's own faults are no reasons to refuse a request.
REASONS = tuple(problem.type.removeprefix(problems.TYPE_PREFIX) for problem in problems.KINDS if problem.status < 500)

_STAGE_BOUNDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_CONFIDENCE_BOUNDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)

# Content types of what a body's own content type does not tell.
_OIP = "application/x-oip"
_KSERVE_V1 = "application/x-kserve-v1"
_NAMED = {
    **{f"image/{name}": name for name in FORMATS[:5]},
    **{"image/jpg": "jpeg", "image/x-ms-bmp": "bmp", "image/x-bmp": "bmp", _OIP: "oip", _KSERVE_V1: "kserve_v1"},
}


def families(signature: Signature) -> tuple[Family, ...]:
    """Everything that a worker of this model counts."""
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
            "Requests refused for what they are, by the type of the problem.",
            reason=REASONS,
        ),
        _family(
            "fashion_stage_seconds",
            "histogram",
            "Seconds that a request's batch took in each stage, once for each request.",
            _STAGE_BOUNDS,
            stage=STAGES,
        ),
        _family(
            "fashion_handler_seconds",
            "histogram",
            "Seconds that a request's batch took in all stages, once for each request.",
            _STAGE_BOUNDS,
        ),
        _family("fashion_batch_requests", "histogram", "Requests in one batch.", _BATCH_BOUNDS),
        _family(
            "fashion_fast_path_total",
            "counter",
            "Batches of requests alike in their headers, answered at once, or where that failed.",
            outcome=FAST_PATH_OUTCOMES,
        ),
        _family("fashion_examples_total", "counter", "Images or vectors that went through the network."),
        _family(
            "fashion_predictions_total",
            "counter",
            "Examples decided for each label; sigmoid models decide for any number of labels.",
            label=signature.output.labels,
        ),
        _family(
            "fashion_confidence",
            "histogram",
            "Probability of what the model decided; for sigmoid models the mean over the labels.",
            _CONFIDENCE_BOUNDS,
        ),
        _family("fashion_model_info", "gauge", "1 for each version.", kind=(signature.input.kind,)),
        _family("fashion_model_accuracy", "gauge", "Share of the test set that the version decides rightly."),
    )


def _family(
    name: str,
    type_: Literal["counter", "gauge", "histogram"],
    text: str,
    bounds: tuple[float, ...] = (),
    /,
    **labels: Sequence[str],
) -> Family:
    return Family(name, type_, text, tuple(labels), tuple(itertools.product(*labels.values())), bounds)


@dataclasses.dataclass
class Batch:
    """One call of the handler.

    Attributes:
        answered: for each request that got its answer, what ``content_type`` says of it.
        refused: the same for each other request, with the kind of its problem.
        seconds: how long the batch took in each of ``STAGES``; nothing where no request came to its end.
        probabilities: float32 ``[N, labels]``, if the network was asked.
        fast_path: one of ``FAST_PATH_OUTCOMES``, if the batch took it.
    """

    answered: list[str] = dataclasses.field(default_factory=list)
    refused: list[tuple[str, type[Problem]]] = dataclasses.field(default_factory=list)
    seconds: tuple[float, float, float] | None = None
    probabilities: NDArray[np.float32] | None = None
    fast_path: str | None = None


def content_type(request: Request, envelope: object = "plain") -> str:
    """What a request's format is told by: a content type, or what stands for one.

    Args:
        request: one of a batch.
        envelope: that of ``decoding.Decoded``, as far as the request could be decoded.
    """
    parts = request.parts
    if envelope != "plain":
        return _KSERVE_V1 if envelope == "predictions" else _OIP
    if len(parts) == 1:
        return parts[0].content_type
    return multipart.CONTENT_TYPE if parts else ""


@functools.lru_cache(maxsize=256)
def format_of(content_type: str) -> str:
    """The member of ``FORMATS`` for what the function ``content_type`` gave."""
    kind = decoding.kind_of(content_type)
    name = content_type.partition(";")[0].strip().lower()
    return _NAMED.get(name, "raw" if kind == "octets" else kind)


class Recorder:
    """Counts the batches of one worker.

    Args:
        folder: of the files; made when needed.
        signature: of the model that the worker serves.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, signature: Signature) -> None:
        self._counts = counter_file.claim(folder, signature.model, signature.version, families(signature))
        self._activation = signature.output.activation
        self._counts["fashion_model_info"][:] = 1
        self._counts["fashion_model_accuracy"][:] = signature.scored.get("test_accuracy", math.nan)
        self._batches: collections.deque[Batch] = collections.deque()

    def add(self, batch: Batch) -> None:
        """Count a batch, within a quarter of a second."""
        self._batches.append(batch)

    def run(self) -> None:
        """Add up what is counted, until the process ends."""
        while True:
            time.sleep(_INTERVAL)
            try:
                self.add_up()
            except Exception:
                logger.exception("Some requests could not be counted")

    def add_up(self) -> None:
        """Write what was counted since the last time to the file."""
        batches = [self._batches.popleft() for _ in range(len(self._batches))]
        if not batches:
            return
        self._add_requests(batches)
        sizes = np.array([len(batch.answered) + len(batch.refused) for batch in batches], np.float64)
        # Descriptions alone make an empty batch.
        _observe(self._counts["fashion_batch_requests"][0], _BATCH_BOUNDS, sizes[sizes > 0])
        outcomes = [batch.fast_path for batch in batches]
        self._counts["fashion_fast_path_total"][:, 0] += [outcomes.count(outcome) for outcome in FAST_PATH_OUTCOMES]
        timed = [batch.seconds is not None for batch in batches]
        seconds = np.array([batch.seconds for batch in batches if batch.seconds], np.float64).reshape(-1, len(STAGES))
        for histogram, took in zip(self._counts["fashion_stage_seconds"], seconds.T, strict=True):
            _observe(histogram, _STAGE_BOUNDS, took, sizes[timed])
        _observe(self._counts["fashion_handler_seconds"][0], _STAGE_BOUNDS, seconds.sum(1), sizes[timed])
        found = [batch.probabilities for batch in batches if batch.probabilities is not None]
        if found:
            self._add_decisions(np.concatenate(found))

    def _add_requests(self, batches: Sequence[Batch]) -> None:
        requests = self._counts["fashion_requests_total"].reshape(len(FORMATS), len(STATUSES))
        answered = collections.Counter(itertools.chain.from_iterable(batch.answered for batch in batches))
        for told, count in answered.items():
            requests[FORMATS.index(format_of(told)), 0] += count
        for told, problem in itertools.chain.from_iterable(batch.refused for batch in batches):
            requests[FORMATS.index(format_of(told)), STATUSES.index(str(problem.status))] += 1
            reason = problem.type.removeprefix(problems.TYPE_PREFIX)
            if reason in REASONS:
                self._counts["fashion_rejected_total"][REASONS.index(reason), 0] += 1

    def _add_decisions(self, probabilities: NDArray[np.float32]) -> None:
        # One request's values can be too large for the network; one NaN would make the sum NaN for good.
        finite = probabilities[np.isfinite(probabilities).all(1)]
        if self._activation == "softmax":
            decided = np.bincount(finite.argmax(1), minlength=finite.shape[1])
            confidence = finite.max(1)
        else:
            decided = (finite >= encoding.THRESHOLD).sum(0)
            confidence = np.maximum(finite, 1 - finite).mean(1)
        self._counts["fashion_examples_total"] += len(finite)
        self._counts["fashion_predictions_total"][:, 0] += decided
        _observe(self._counts["fashion_confidence"][0], _CONFIDENCE_BOUNDS, confidence)


def open_recorder(signature: Signature) -> Recorder | None:
    """A recorder at work, in the folder that the environment names; ``None`` without one, or if it cannot be used."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    try:
        recorder = Recorder(Path(folder), signature)
    except OSError as error:
        logger.warning("This worker's requests are not counted: %s=%s cannot be used: %s", VARIABLE, folder, error)
        return None
    threading.Thread(target=recorder.run, name="metrics", daemon=True).start()
    return recorder


def _observe(
    histogram: NDArray[np.float64],
    bounds: Sequence[float],
    values: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
) -> None:
    """Add values to a histogram: its buckets, each with its upper bound, and then its sum."""
    buckets = np.bincount(np.searchsorted(bounds, values), weights, minlength=len(bounds) + 1)
    histogram[:-1] += buckets
    histogram[-1] += values.sum(dtype=np.float64) if weights is None else values @ weights
