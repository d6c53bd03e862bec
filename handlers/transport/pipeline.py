"""Has TorchServe's frontend hand out answers and gather requests while the worker computes, and not in turns with it.

The frontend sends a worker its next message when it has the answers to the last one. With ``continuousBatching``, made
for text generation, these may be the answers to some of the requests: the next message then has all that are not
answered once more, and without any wait those that have come meanwhile, up to the batch size. So a worker that answers
a part of what it has goes on with the rest, and finds the next message when it is done with it::

    worker     compute a │ compute b            │ compute c
    frontend             │ hand out a, gather c │ hand out b, gather d

That gains nothing with few callers, as parts are small then and cost as much as large ones. With them the worker takes
turns: it computes all requests but one, and then has the frontend gather until as many have come as before.

A message is read before the answers to it go out, although they do not depend on it: the frontend writes two messages
in any order.

In a frontend, one lock keeps the workers of a model version from gathering at once, and a worker with nothing to do
holds it until a request comes. A part's answers would wait for that. So a worker that is not the only one of its
version answers each message as a whole.
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
from handlers.transport.wire import Batch, Read, Reader
from handlers.transport.worker_lock import Siblings

logger = logging.getLogger(__name__)

# With the value "torchserve", this environment variable leaves the protocol to TorchServe's own code.
VARIABLE = "FASHION_WIRE"
# The protocol has no version of its own.
VERSION = "0.12.0"

# Of the requests that wait, so many are left for the next part, so that there is something to compute meanwhile.
_LEFT = 0.25
# With fewer it is better to wait for the next message: to compute one takes about as long as four.
_FEW = 4
# With few callers a part takes less time than to hand out its answers and to gather what follows on them. Then it is
# better to take turns with them: to leave one alone, and to wait until as many as before have come. That begins with so
# many requests in the worker at once, and ends with so many; without turns it sees about half of them.
_FEW_CALLERS = 10, 24
# So often the worker looks who has come, and waits so many nanoseconds before each time. Some systems cannot let others
# run meanwhile.
_LOOKS = 3 if hasattr(os, "sched_yield") else 0
_PAUSE = 40_000
# Bytes of requests up to which they may come once more.
_AGAIN = 1 << 20

# Answers to none of the requests, which have the frontend gather once more.
_NO_ANSWERS = struct.pack(">iii", 200, 0, -1)


class Pipeline:
    """Reads and answers on the one connection of a worker.

    Args:
        siblings: of this worker; without it, each message is answered as a whole, as it has to be where the frontend
            does not know the model as one with continuous batching.
    """

    def __init__(self, siblings: Siblings | None = None) -> None:
        self._siblings = siblings
        self._reader = Reader()
        self._waiting: list[Read] = []
        self._computed: list[Read] = []
        # Whether a message was read that is not answered. The frontend sends the next one when it is.
        self._owes = False
        # Whether requests were left when the last part was answered, and whether this part may leave some.
        self._flows = self._splits = False
        # The most requests that waited at once, less one for each part since, and whether they are few callers'.
        self._crowd, self._turns = 0, True

    def retrieve_msg(self, connection: socket.socket) -> tuple[bytearray, Any]:
        """Read what has come, and say what to do next, in the place of TorchServe's function of this name.

        Returns:
            The command, and for ``b"I"`` a ``Batch``, for ``b"L"`` TorchServe's dict.

        Raises:
            SystemExit: the frontend has closed the connection; with status 0.
            ValueError: the command is neither of the two.
        """
        self._connection = connection
        if self._owes:
            self._sent()
        if message := self._reader.read(connection, wait=len(self._waiting) < _FEW):
            command, content = message
            if command != upstream.PREDICT_MSG:
                return message
            self._take(content)
        if self._flows and self._turns and self._crowd >= _FEW:
            self._gather()
        self._crowd = max(len(self._waiting), self._crowd - 1)
        self._turns = self._crowd <= _FEW_CALLERS[self._turns]
        size = self._size()
        self._computed, self._waiting = self._waiting[:size], self._waiting[size:]
        return bytearray(upstream.PREDICT_MSG), wire.gathered(self._computed)

    def create_predict_response(
        self, ret: Any, req_id_map: Mapping[int, str], message: str, code: int, *more: Any, **named: Any
    ) -> Any:
        """The answers to the batch that was given out last; as ``wire.create_predict_response``."""
        if self._siblings:
            # Read the message that the answers are for, and if nobody waits after them, look whether somebody does now.
            self._read_next()
            if self._splits and self._flows and not self._waiting:
                # Without a request to go on with, the frontend would wait for a whole batch.
                self._look()
            if code != 200:
                # The frontend takes that for the answer to all that it has sent.
                self._waiting.clear()
                self._reader.known.clear()
        return wire.create_predict_response(ret, req_id_map, message, code, *more, **named)

    def _sent(self) -> None:
        """The answers to the last batch have gone out."""
        self._owes = False
        for request in self._computed:
            self._reader.known.pop(request.name, None)
        self._flows = bool(self._waiting)
        if self._siblings and not self._waiting:
            self._siblings.let_come()

    def _take(self, requests: list[Read]) -> None:
        self._owes = True
        self._waiting += requests
        if self._siblings:
            self._reader.known.update([(request.name, request.length) for request in requests])

    def _gather(self) -> None:
        """Wait a little for as many requests as have come lately."""
        for _ in range(_LOOKS):
            if len(self._waiting) >= self._crowd or not self._may_leave():
                return
            until = time.monotonic_ns() + _PAUSE
            self._read_next()
            while time.monotonic_ns() < until:
                os.sched_yield()
            self._look()

    def _may_leave(self) -> bool:
        """Whether requests may stay without an answer, and come once more, while others are answered."""
        return self._siblings is not None and sum(self._reader.known.values()) <= _AGAIN and self._siblings.none()

    def _size(self) -> int:
        """How many of those that wait are computed now."""
        count = len(self._waiting)
        self._splits = (count > 1 or self._flows) and self._may_leave()
        left = 1 if self._turns else round(count * _LEFT)
        return max(count - left, 1) if self._splits else count

    def _look(self) -> None:
        """Have the frontend send what has come since it sent the message that was read last."""
        self._connection.sendall(_NO_ANSWERS)
        self._owes = False
        self._read_next()

    def _read_next(self) -> None:
        if not self._owes and (message := self._reader.read(self._connection)):
            self._take(message[1])


def install(folder: Path | None = None, worker: Any = None) -> bool:
    """Read and write by this module from the worker's next message on; the log says whether, and if not, why.

    A handler calls this while its model is loaded. By then the message that asked for it has been read to its end, and
    the worker looks its reader up anew for the next.

    Args:
        folder: of the unpacked archive, if the frontend knows the model as one with continuous batching.
        worker: the module ``ts.model_service_worker``; in a worker process, that is the main module.

    Returns:
        Whether this module reads and writes now; if not, TorchServe's own functions still do.

    Raises:
        ValueError: the environment variable has another value than "torchserve".
    """
    worker = worker or sys.modules["__main__"]
    if choice := os.environ.get(VARIABLE):
        if choice != "torchserve":
            raise ValueError(f"{VARIABLE} must be torchserve or unset, got {choice!r}")
        logger.info("TorchServe's reader serves: %s=%s", VARIABLE, choice)
        return False
    if ts.__version__ != VERSION:
        logger.info("TorchServe's reader serves: it is version %s, and this one knows %s", ts.__version__, VERSION)
        return False
    if getattr(worker, "retrieve_msg", None) is not upstream.retrieve_msg:
        logger.info("TorchServe's reader serves, if any: this process is not one of its workers")
        return False
    pipeline = Pipeline(_siblings(folder))
    retrieve_data = Service.retrieve_data_for_inference
    worker.retrieve_msg = pipeline.retrieve_msg
    Service.retrieve_data_for_inference = staticmethod(
        lambda message: message if type(message) is Batch else retrieve_data(message)
    )
    service.create_predict_response = pipeline.create_predict_response
    logger.info("handlers.transport.pipeline reads and writes in the place of TorchServe %s", VERSION)
    return True


def _siblings(folder: Path | None) -> Siblings | None:
    if folder is None:
        return None
    try:
        return Siblings(folder)
    except OSError as error:
        logger.warning("Each message is answered as a whole, which is slower: %s cannot be used: %s", folder, error)
        return None
