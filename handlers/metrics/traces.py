"""A worker's part of traces: one line for each batch with sampled requests, in a file that the front door reads.

    traceparent, X-Request-Start ──► Batch ──► line ──► serving/sidecars/traces/ ──► OTLP

Only sampled requests have these headers. The gateway and the gRPC bridge decide which requests are sampled. A line is a
JSON object::

    model, version                  of the worker
    size                            requests in the batch
    start                           when the handler received the batch, in seconds since 1970
    seconds                         of each of the recorder's STAGES; of "handler", if no request passed all of them
    requests                        for each sampled request: its traceparent, and when it was passed to TorchServe
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import orjson
from ts.context import Context

from handlers.metrics.recorder import STAGES, Batch
from handlers.signature import Signature
from handlers.transport.request_patterns import START_HEADER, TRACE_HEADER, Processors

logger = logging.getLogger(__name__)

# Environment variable with the path of the file; a worker without it writes nothing.
VARIABLE = "FASHION_TRACES_FILE"


class TraceWriter:
    """Writes the lines of one worker.

    Args:
        path: of the file, which other processes write too; created if missing.
        signature: of the model that the worker serves.

    Raises:
        OSError: the file cannot be written to.
    """

    def __init__(self, path: Path, signature: Signature) -> None:
        # The kernel appends what one call writes as a whole.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._worker = {"model": signature.model, "version": signature.version}
        self._failed = False

    def write(self, context: Context, batch: Batch, start: float) -> None:
        """Write a line if the batch has sampled requests.

        Args:
            context: of the batch.
            batch: its observations.
            start: when the handler received it, in seconds since 1970.
        """
        sampled = _sampled(context.request_processor)
        if not sampled:
            return
        line = {
            **self._worker,
            "size": len(context.request_processor),
            "start": start,
            "seconds": (
                dict(zip(STAGES, batch.seconds, strict=True)) if batch.seconds else {"handler": time.time() - start}
            ),
            "requests": sampled,
        }
        try:
            os.write(self._file, orjson.dumps(line) + b"\n")
        except OSError as error:
            if not self._failed:
                logger.warning("Traces of this worker are lost: %s", error)
            self._failed = True


def _sampled(processors: object) -> list[tuple[str, str]]:
    """The values of ``TRACE_HEADER`` and ``START_HEADER`` of each sampled request.

    Args:
        processors: a ``RequestProcessor`` for each request of the batch.
    """
    if type(processors) is Processors:
        return processors.traces()
    assert isinstance(processors, list)
    headers = [processor.get_request_properties() for processor in processors]
    return [(each[TRACE_HEADER], each.get(START_HEADER, "")) for each in headers if TRACE_HEADER in each]


def open_writer(signature: Signature) -> TraceWriter | None:
    """A writer to the file from the environment; ``None`` without one, or if it cannot be used."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return TraceWriter(Path(path), signature)
    except OSError as error:
        logger.warning("This worker writes no traces: cannot use %s=%s: %s", VARIABLE, path, error)
        return None
