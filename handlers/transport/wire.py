"""The worker's end of its socket to TorchServe's frontend: batches come in and answers go out, each in one pass.

TorchServe's reader asks the socket for every field of a request, some twenty times; this one takes all that has
arrived and reads the fields from there, straight into what ``ts.service.Service`` makes of a message. The layout is
that of the frontend's ``ModelRequestEncoder`` and ``ModelResponseDecoder``; lengths and numbers are big-endian int32,
each text or body has its length in front, and -1 ends a list::

    batch     'I'  ( id  ( name value )*  -1  ( name content-type value )*  -1 )*  -1
    answers   code  message  ( id  content-type  status  phrase  count ( name value )*  body )*  -1

What is rare (loading a model, answering a batch that failed) stays with TorchServe's own functions.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ts.context import RequestProcessor
from ts.protocol import otf_message_handler as upstream

from handlers.transport.request_patterns import LAST, OWN_HEADERS, Bodies, Pattern, Processors, number_at

logger = logging.getLogger(__name__)

# More than a Unix socket holds by default (Linux: 212,992 bytes).
_READ_AHEAD = 1 << 18

# Nanoseconds. Where the last message came sooner than this, the worker looks so long for the next before it sleeps: to
# be woken takes as long as a small batch, and who calls seldom pays nothing. Other systems cannot let others run first.
_SOON = 500_000 if hasattr(os, "sched_yield") else 0

_END = b"\xff\xff\xff\xff"
# No request goes on so: the length of a name, negative.
_NO_PATTERN = Pattern([b"\x80\0\0\0"], [], "", {})
_packed = struct.Struct(">i").pack


class Read(NamedTuple):
    """A request as it was read.

    Attributes:
        name: its id.
        length: of the request in its message, in bytes.
        pattern: what it shares with others, if it was told by that.
        content: the fields of the pattern; without one, the request's ``RequestProcessor`` and its parameters.
    """

    name: str
    length: int
    pattern: Pattern | None
    content: Any


class Batch(NamedTuple):
    """A message with requests, as ``Service.retrieve_data_for_inference`` returns it.

    Attributes:
        processors: a ``ts.context.RequestProcessor`` for each request, with its headers and content types.
        inputs: the parameters of each request, by name.
        ids: the id of each request, by its place.

    Processors and inputs are lists, or those of ``handlers.transport.request_patterns``.
    """

    processors: Sequence[Any]
    inputs: Sequence[dict[str, Any]]
    ids: dict[int, str]


class Repeated(str):
    """The name of a parameter that comes after another of that name: the same text, but a key of its own in a dict.

    Files of one multipart request often share a field name, and by their text alone the last would replace the others.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__


class Reader:
    """Reads the messages of one connection, which is all that a worker process ever has.

    What was read ahead stays here, so no other reader can follow on the connection. TorchServe's can come before, as
    it does with the message that has the model loaded: it takes no byte beyond its message.

    Attributes:
        known: lengths of requests that may come again and are left out then, by their ids.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self._buffer = bytearray()
        # Of the message that is being read: where to go on, 0 before its start, and what was found so far.
        self._position = 0
        self._found: list[Read] = []
        self._was_soon = False
        # serving/ sets "false", which leaves decoding to the handler.
        self._decodes = os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"
        # Of the last request with one parameter.
        self._pattern = _NO_PATTERN
        # Of the last request that was told by a pattern, in bytes.
        self._length = 0

    def read(self, connection: socket.socket, wait: bool = True) -> tuple[bytearray, Any] | None:
        """Read one message: its command, and for ``b"I"`` a list of ``Read``, for ``b"L"`` TorchServe's dict.

        Args:
            connection: to the frontend.
            wait: for all of the message; else ``None`` if it has not come yet, and the next call goes on with it.

        Raises:
            SystemExit: the frontend has closed the connection; with status 0, as in TorchServe's reader.
            ValueError: the command is neither of the two.
        """
        if not self._buffer and not self._receive(connection, wait):
            return None
        command = self._buffer[:1]
        if command != upstream.PREDICT_MSG:
            message: tuple[bytearray, Any] = upstream.retrieve_msg(_ReadAhead(self._buffer, connection))
            return message
        self._position = self._position or 1
        while not self._parse():
            if not self._receive(connection, wait):
                return None
        del self._buffer[: self._position]
        self._position = 0
        found, self._found = self._found, []
        return command, found

    def _receive(self, connection: socket.socket, wait: bool) -> bool:
        """Take what has come, and unless it may not ``wait``, something in any case."""
        began = time.monotonic_ns()
        received = None
        while self._was_soon or not wait:
            try:
                received = connection.recv(_READ_AHEAD, socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                if not wait:
                    return False
                os.sched_yield()
                self._was_soon = time.monotonic_ns() - began < _SOON
        if received is None:
            received = connection.recv(_READ_AHEAD)
        self._was_soon = time.monotonic_ns() - began < _SOON
        if not received:
            logger.info("Frontend disconnected.")
            sys.exit(0)
        self._buffer += received
        return True

    def _parse(self) -> bool:
        """Find the requests that are in the buffer as a whole; true if the message ends after them."""
        data, known, found, pattern = self._buffer, self.known, self._found, self._pattern
        at = self._position
        try:
            while (length := number_at(data, at)[0]) != LAST:
                start = at + 4
                end = start + length
                name = data[start:end].decode()
                if name in known:
                    at += known[name]
                elif told := pattern.read(data, end):
                    fields, end = told
                    found.append(Read(name, length := end - at, pattern, fields))
                    at = end
                    # Where lengths differ, to compare them for each would only cost time.
                    if length == self._length:
                        for other, values in pattern.like(data, at, name, fields):
                            if other not in known:
                                found.append(Read(other, length, pattern, values))
                            at += length
                    self._length = length
                else:
                    content, end = self._described(data, end)
                    found.append(Read(name, end - at, None, content))
                    pattern = self._pattern
                    at = end
                self._position = at
            self._position = at + 4
            return True
        except struct.error:
            # The buffer ends within a request, which is read again from its start when more has come.
            return False

    def _described(self, data: bytearray, at: int) -> tuple[tuple[RequestProcessor, dict[str, Any]], int]:
        """The request whose headers start at ``at``, and where it ends; its like are told by a pattern from then on."""
        headers, own, end = _headers(data, at)
        parameters, properties, end = self._parameters(data, end)
        properties.update(headers)
        if len(parameters) == 1 and not self._decodes:
            ((parameter, value),) = parameters.items()
            # After the value stands the end of the list.
            starts = [at, *(stop for _, _, stop in own)]
            stops = [*(start for _, start, _ in own), end - 4 - len(value)]
            pieces = [bytes(data[start : stop - 4]) for start, stop in zip(starts, stops, strict=True)]
            self._pattern = Pattern(pieces, [name for name, _, _ in own], parameter, dict(properties))
        return (RequestProcessor(properties), parameters), end

    def _parameters(self, data: bytearray, at: int) -> tuple[dict[str, Any], dict[str, Any], int]:
        values: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        (length,) = number_at(data, at)
        at += 4
        while length != LAST:
            start, at = at, at + length
            (length,) = number_at(data, at)
            type_start = at + 4
            type_end = type_start + length
            (length,) = number_at(data, type_end)
            value_start = type_end + 4
            end = value_start + length
            # A number follows every field, so that a field is whole if the number can be read.
            (length,) = number_at(data, end)
            name = data[start:at].decode()
            if name in values:
                name = Repeated(name)
            content_type = data[type_start:type_end].decode()
            value = data[value_start:end]
            values[name] = _decoded(value, content_type) if self._decodes else value
            properties[name] = {"content-type": content_type}
            at = end + 4
        return values, properties, at


def gathered(requests: Sequence[Read]) -> Batch:
    """Requests as one batch."""
    ids = dict(enumerate([request.name for request in requests]))
    shared = {request.pattern for request in requests}
    if len(shared) == 1 and (pattern := shared.pop()):
        fields = [request.content for request in requests]
        return Batch(Processors(pattern, fields), Bodies(pattern, fields), ids)
    processors, inputs = list[Any](), list[dict[str, Any]]()
    for _, _, pattern, content in requests:
        if pattern:
            processor = RequestProcessor(pattern.properties_of(content))
            content = processor, {pattern.parameter: content[-1]}
        processors.append(content[0])
        inputs.append(content[1])
    return Batch(processors, inputs, ids)


def _headers(data: bytearray, at: int) -> tuple[dict[str, str], list[tuple[str, int, int]], int]:
    """The headers that start at ``at``; names of ``OWN_HEADERS`` with where their values start and end; the end."""
    headers: dict[str, str] = {}
    own = []
    (length,) = number_at(data, at)
    at += 4
    while length != LAST:
        start, at = at, at + length
        (length,) = number_at(data, at)
        value_start = at + 4
        end = value_start + length
        (length,) = number_at(data, end)
        name = data[start:at].decode()
        headers[name] = data[value_start:end].decode()
        if name.lower() in OWN_HEADERS:
            own.append((name, value_start, end))
        at = end + 4
    return headers, own, at


def _decoded(value: bytearray, content_type: str) -> Any:
    """A parameter as TorchServe's reader gives it: JSON parsed and text decoded, or the bytes where they cannot be."""
    try:
        if content_type == "application/json":
            return json.loads(value.decode())
        return value.decode() if content_type.startswith("text") else value
    except (ValueError, RecursionError):
        logger.warning("A body is not the %s that it is said to be; the handler gets its bytes", content_type)
        return value


class _ReadAhead:
    """A connection of which some bytes lie in a buffer already."""

    def __init__(self, buffer: bytearray, connection: socket.socket) -> None:
        self._buffer = buffer
        self._connection = connection

    def recv(self, size: int, /) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken or self._connection.recv(size)


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Any = None,
    ts_stream_next: bool = False,
) -> Any:
    """The answers to a batch, as TorchServe's function of this name writes them.

    Args:
        ret: the handler's answers; anything but a list of bytes is left to TorchServe's function.
        req_id_map: as ``Batch.ids``.
        message: what is said of the batch as a whole.
        code: the HTTP status of the batch as a whole.
        context: has each answer's status and headers; without it, the batch has failed.
        ts_stream_next: the answers are not the last ones to these requests.
    """
    if ret is not None and context is not None and not ts_stream_next and not context.stopping_criteria:
        said = message.encode()
        pieces = [_packed(code), _packed(len(said)), said]
        processors = context.request_processor
        at_once = type(processors) is Processors and processors.headers is not None
        of_all = (processors.headers, None, None) if at_once else None
        # Most answers of a batch have the same head.
        last: tuple[Any, ...] = ()
        head = b""
        for place, name in req_id_map.items():
            answer = ret[place]
            described = of_all or _described(processors[place])
            if type(answer) is not bytes or described[0].get("ts_stream_next") == "true":
                break
            if described != last:
                head, last = _head(*described), described
            identity = name.encode()
            pieces += (_packed(len(identity)), identity, head, _packed(len(answer)), answer)
        else:
            pieces.append(_END)
            return b"".join(pieces)
    return upstream.create_predict_response(ret, req_id_map, message, code, context, ts_stream_next)


def _described(processor: Any) -> tuple[Mapping[str, str], int | None, str | None]:
    return (
        processor.get_response_headers(),
        processor.get_response_status_code(),
        processor.get_response_status_phrase(),
    )


def _head(headers: Mapping[str, str], status: int | None, phrase: str | None) -> bytes:
    """What stands between an answer's id and its body."""

    def text(value: str | None) -> bytes:
        encoded = (value or "").encode()
        return _packed(len(encoded)) + encoded

    content_type = text(headers.get("content-type"))
    pairs = b"".join(text(name) + text(value) for name, value in headers.items())
    return content_type + _packed(200 if status is None else status) + text(phrase) + _packed(len(headers)) + pairs
