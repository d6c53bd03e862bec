"""Overlap computing with I/O: answer part of a batch, so that the frontend works while the worker computes the rest.

TorchServe's frontend sends a worker the next message once it has the answers to the last one. With
``continuousBatching``, made for text generation, a worker may answer only some of its requests. The next message then
repeats the others, and adds without delay the requests that have arrived meanwhile, up to the batch size. The worker
computes the others at the same time, and afterwards finds the next message ready to be read::

    worker     compute a │ compute b             │ compute c
    frontend             │ deliver a, gather c   │ deliver b, gather d

With few callers the parts would be small, and a small part costs as much as a large one. The worker then takes turns
with the frontend: it computes all requests but one, and has the frontend gather until as many wait as before.

The worker reads each message before it sends the answers that the frontend counts for it, even if it computed them
without that message. Otherwise the frontend could write two messages in the wrong order.

In the frontend, a lock lets one worker of a model version gather at a time, and an idle worker keeps it until a request
arrives. A partial answer would wait for that lock. So with more than one worker per version, each message is answered
as a whole.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ts
from ts import service
from ts.protocol import otf_message_handler as upstream
from ts.service import Service

from handlers.transport import wire
from handlers.transport.wire import Batch, Reader, WireRequest
from handlers.transport.worker_lock import WorkerLock

logger = logging.getLogger(__name__)

# With the value "torchserve", this environment variable leaves the protocol to TorchServe's own code.
VARIABLE = "FASHION_WIRE"
# The protocol has no version number, so the pipeline is installed in this version of TorchServe only.
VERSION = "0.12.0"

# Share of the waiting requests left for the next part, so that the worker computes them while the frontend gathers.
_REST_SHARE = 0.25
# With fewer requests waiting, block for the next message: computing one request takes about as long as four.
_MIN_WAITING_REQUESTS = 4
# Below some 20 concurrent callers, partial answers cost more than they overlap, so take turns. Hysteresis: start at up
# to 10 requests in the worker, stop above 24. Without turns the worker holds only about half of the callers' requests.
_TURNS_BEGIN_REQUESTS, _TURNS_END_REQUESTS = 10, 24
# When taking turns, poll the frontend up to 3 times, 40 µs apart. Needs sched_yield to let other processes run.
_POLLS = 3 if hasattr(os, "sched_yield") else 0
_POLL_INTERVAL_NS = 40_000
# Answer as a whole when the frontend would have to send more than this again.
_RESEND_LIMIT_BYTES = 1 << 20

# Answers none of the requests, so that the frontend gathers once more.
_EMPTY_ANSWER = struct.pack(">iii", 200, 0, -1)


class Pipeline:
    """Reads requests and writes answers on a worker's one connection.

    Args:
        lock: of this model version's workers. Without it each message is answered as a whole, which a frontend without
            continuous batching needs.
    """

    def __init__(self, lock: WorkerLock | None = None) -> None:
        self._lock = lock
        self._reader = Reader()
        self._waiting: list[WireRequest] = []
        self._computed: list[WireRequest] = []
        # Seconds of all requests in this worker, until their number changed last, in nanoseconds.
        self._request_ns, self._changed_ns = 0, time.monotonic_ns()
        # Whether a message was read and not answered yet. The frontend sends the next one after that answer.
        self._answer_due = False
        # Whether requests were left over after the last answer, and whether this one may leave some over.
        self._left_over = self._may_leave_some = False
        # Most requests that waited at once, less one for each part since; and whether so few mean taking turns.
        self._recent_peak, self._takes_turns = 0, True

    def busy_seconds(self) -> float:
        """Seconds so far in which this worker did not wait for the frontend, without those of the current batch."""
        return self._reader.busy_ns / 1e9

    def request_seconds(self) -> float:
        """Seconds so far that requests spent in this worker, added up; its rate is their mean number.

        Another thread may call this.
        """
        return (self._request_ns + self._requests() * (time.monotonic_ns() - self._changed_ns)) / 1e9

    def retrieve_msg(self, connection: socket.socket) -> tuple[bytearray, Any]:
        """Read new requests and choose what to compute next; replaces TorchServe's function of this name.

        Returns:
            The command, and for ``b"I"`` a ``Batch``, for ``b"L"`` TorchServe's dict.

        Raises:
            SystemExit: the frontend has closed the connection; with status 0.
            ValueError: the command is neither of the two.
        """
        self._connection = connection
        if self._answer_due:
            self._mark_answered()
        if message := self._reader.read(connection, wait=len(self._waiting) < _MIN_WAITING_REQUESTS):
            command, content = message
            if command != upstream.PREDICT_MSG:
                return message
            self._add(content)
        if self._left_over and self._takes_turns and self._recent_peak >= _MIN_WAITING_REQUESTS:
            self._gather()
        self._recent_peak = max(len(self._waiting), self._recent_peak - 1)
        self._takes_turns = self._recent_peak <= (_TURNS_END_REQUESTS if self._takes_turns else _TURNS_BEGIN_REQUESTS)
        size = self._batch_size()
        self._computed, self._waiting = self._waiting[:size], self._waiting[size:]
        return bytearray(upstream.PREDICT_MSG), wire.make_batch(self._computed)

    def create_predict_response(
        self, ret: Any, req_id_map: Mapping[int, str], message: str, code: int, *more: Any, **options: Any
    ) -> Any:
        """The answers to the last batch that ``retrieve_msg`` returned; as ``wire.create_predict_response``."""
        if self._lock:
            # Read the message that these answers count for.
            self._read_next()
            if self._may_leave_some and self._left_over and not self._waiting:
                # With nothing left over, the frontend would wait for a full batch. Poll for requests once more.
                self._poll()
            if code != 200:
                # The frontend takes a failure for the answer to every request it has sent.
                self._count_requests()
                self._waiting.clear()
                self._reader.unanswered.clear()
        return wire.create_predict_response(ret, req_id_map, message, code, *more, **options)

    def _mark_answered(self) -> None:
        """Note that the answers to the last batch were sent."""
        self._answer_due = False
        self._count_requests()
        for request in self._computed:
            self._reader.unanswered.pop(request.id, None)
        self._computed = []
        self._left_over = bool(self._waiting)
        if self._lock and not self._waiting:
            self._lock.release()

    def _add(self, requests: list[WireRequest]) -> None:
        self._answer_due = True
        self._count_requests()
        self._waiting += requests
        if self._lock:
            self._reader.unanswered.update([(request.id, request.length) for request in requests])

    def _requests(self) -> int:
        return len(self._waiting) + len(self._computed)

    def _count_requests(self) -> None:
        """Add up the seconds of the present requests, before their number changes."""
        now = time.monotonic_ns()
        self._request_ns += self._requests() * (now - self._changed_ns)
        self._changed_ns = now

    def _gather(self) -> None:
        """Wait briefly until as many requests wait as did recently."""
        for _ in range(_POLLS):
            if len(self._waiting) >= self._recent_peak or not self._may_answer_in_parts():
                return
            until = time.monotonic_ns() + _POLL_INTERVAL_NS
            self._read_next()
            while time.monotonic_ns() < until:
                os.sched_yield()
            self._poll()

    def _may_answer_in_parts(self) -> bool:
        """Whether some requests may stay unanswered, and be sent again, while others are answered."""
        resent = sum(self._reader.unanswered.values())
        return self._lock is not None and resent <= _RESEND_LIMIT_BYTES and self._lock.acquire()

    def _batch_size(self) -> int:
        """How many of the waiting requests to compute now."""
        count = len(self._waiting)
        self._may_leave_some = (count > 1 or self._left_over) and self._may_answer_in_parts()
        rest = 1 if self._takes_turns else round(count * _REST_SHARE)
        return max(count - rest, 1) if self._may_leave_some else count

    def _poll(self) -> None:
        """Have the frontend send the requests that have arrived since its last message."""
        self._connection.sendall(_EMPTY_ANSWER)
        self._answer_due = False
        self._read_next()

    def _read_next(self) -> None:
        if not self._answer_due and (message := self._reader.read(self._connection)):
            self._add(message[1])


def install(folder: Path | None = None, worker: Any = None) -> Pipeline | None:
    """Replace TorchServe's reader and writer from the worker's next message on, and log whether that was done.

    A handler calls this while its model is loaded. The load message has been read completely by then, and the worker
    looks up ``retrieve_msg`` anew for each message.

    Args:
        folder: of the unpacked archive, if the frontend knows that the model has continuous batching.
        worker: the module ``ts.model_service_worker``, which is the main module of a worker process.

    Returns:
        What replaces them; ``None`` if TorchServe's own stay.

    Raises:
        ValueError: the environment variable has another value than "torchserve".
    """
    worker = worker or sys.modules["__main__"]
    if choice := os.environ.get(VARIABLE):
        if choice != "torchserve":
            raise ValueError(f"{VARIABLE} must be torchserve or unset, got {choice!r}")
        logger.info("Using TorchServe's own reader: %s=%s", VARIABLE, choice)
        return None
    if ts.__version__ != VERSION:
        logger.info("Using TorchServe's own reader: TorchServe is %s, the pipeline needs %s", ts.__version__, VERSION)
        return None
    if getattr(worker, "retrieve_msg", None) is not upstream.retrieve_msg:
        logger.info("The pipeline is not installed: this process is not a TorchServe worker")
        return None
    pipeline = Pipeline(_open_lock(folder))
    retrieve_data = Service.retrieve_data_for_inference
    worker.retrieve_msg = pipeline.retrieve_msg
    Service.retrieve_data_for_inference = staticmethod(
        lambda message: message if type(message) is Batch else retrieve_data(message)
    )
    service.create_predict_response = pipeline.create_predict_response
    logger.info("handlers.transport.pipeline replaces the reader and writer of TorchServe %s", VERSION)
    return pipeline


def _open_lock(folder: Path | None) -> WorkerLock | None:
    if folder is None:
        return None
    try:
        return WorkerLock(folder)
    except OSError as error:
        logger.warning("Answering each message as a whole, which is slower: cannot use %s: %s", folder, error)
        return None
