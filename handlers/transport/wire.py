"""The worker's end of its socket to TorchServe's frontend: read a batch, and write its answers, in one pass each.

TorchServe's reader calls ``recv`` for every field, some twenty times per request. This reader receives all that has
arrived at once, and parses it into the form that ``ts.service.Service`` gives a message. The frontend's
``ModelRequestEncoder`` and ``ModelResponseDecoder`` define the layout. Lengths and numbers are big-endian int32, each
text or body follows its length, and -1 ends a list::

    batch     'I'  ( id  ( name value )*  -1  ( name content-type value )*  -1 )*  -1
    answers   code  message  ( id  content-type  status  phrase  count ( name value )*  body )*  -1

TorchServe's own functions handle rare messages: loading a model, and answering a failed batch.
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

from handlers.transport.request_patterns import (
    LIST_END,
    START_HEADER,
    TRACE_HEADER,
    VARYING_HEADERS,
    Bodies,
    Pattern,
    Processors,
    TracedFields,
    unpack_number,
)

logger = logging.getLogger(__name__)

# More than a Unix socket buffers by default (Linux: 212,992 bytes), so that one call receives all of it.
_RECEIVE_BYTES = 1 << 18

# Spin up to 0.5 ms for the next message if the previous one arrived that fast: a wake-up costs as much as a small
# batch. Idle workers never spin. Without sched_yield none does, because other processes could not run meanwhile.
_SPIN_NS = 500_000 if hasattr(os, "sched_yield") else 0

_END = b"\xff\xff\xff\xff"
# Matches no request: a header name's length can't be negative.
_NO_PATTERN = Pattern([b"\x80\0\0\0"], [], "", {})
_pack_number = struct.Struct(">i").pack


class WireRequest(NamedTuple):
    """A request as it was read.

    Attributes:
        id: of the request, given by the frontend.
        length: the bytes that the request takes in its message.
        pattern: that the request matched, if any.
        content: the fields of the pattern; without one, the request's ``RequestProcessor`` and its parameters.
    """

    id: str
    length: int
    pattern: Pattern | None
    content: Any


class Batch(NamedTuple):
    """A message with requests, as ``Service.retrieve_data_for_inference`` returns it.

    Attributes:
        processors: a ``ts.context.RequestProcessor`` for each request, with its headers and content types.
        inputs: the parameters of each request, by name.
        ids: the id of each request, by its index.

    Processors and inputs are lists, or the sequences of ``handlers.transport.request_patterns``.
    """

    processors: Sequence[Any]
    inputs: Sequence[dict[str, Any]]
    ids: dict[int, str]


class RepeatedName(str):
    """The name of a parameter that follows another of the same name: equal text, but a separate key in a dict.

    Files of one multipart request often share a field name. As plain strings, the last would replace the others.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__


class Reader:
    """Reads the messages of a worker's one connection.

    It receives more than one message at once, so no other reader can follow it. TorchServe's reader may read before it,
    as it does for the load message, because that reader receives no byte beyond its message.

    Attributes:
        unanswered: lengths of the requests to skip when the frontend sends them again, by id.
        busy_ns: time from the end of each wait for the frontend to the start of the next, in nanoseconds.
    """

    def __init__(self) -> None:
        self.unanswered: dict[str, int] = {}
        self.busy_ns = 0
        self._busy_since_ns = time.monotonic_ns()
        self._buffer = bytearray()
        # Of the current message: how far it is parsed, 0 before its start, and the requests so far.
        self._position = 0
        self._requests: list[WireRequest] = []
        self._spins = False
        # serving/ sets "false", which leaves decoding to the handler.
        self._decodes = os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"
        # Of the last request with one parameter.
        self._pattern = _NO_PATTERN
        # Of the last request that matched a pattern.
        self._length = 0

    def read(self, connection: socket.socket, wait: bool = True) -> tuple[bytearray, Any] | None:
        """Read one message: its command, and for ``b"I"`` a ``WireRequest`` list, for ``b"L"`` TorchServe's dict.

        Args:
            connection: to the frontend.
            wait: block until the message is complete; otherwise return ``None``, and the next call continues with it.

        Raises:
            SystemExit: the frontend has closed the connection; with status 0, as in TorchServe's reader.
            ValueError: the command is neither of the two.
        """
        if not self._buffer and not self._receive(connection, wait):
            return None
        command = self._buffer[:1]
        if command != upstream.PREDICT_MSG:
            message: tuple[bytearray, Any] = upstream.retrieve_msg(_Buffered(self._buffer, connection))
            return message
        self._position = self._position or 1
        while not self._parse():
            if not self._receive(connection, wait):
                return None
        del self._buffer[: self._position]
        self._position = 0
        requests, self._requests = self._requests, []
        return command, requests

    def _receive(self, connection: socket.socket, wait: bool) -> bool:
        """Receive what has arrived; false if that is nothing and it must not ``wait``."""
        began = time.monotonic_ns()
        if wait:
            self.busy_ns += began - self._busy_since_ns
        received = None
        while self._spins or not wait:
            try:
                received = connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                if not wait:
                    return False
                os.sched_yield()
                self._spins = time.monotonic_ns() - began < _SPIN_NS
        if received is None:
            received = connection.recv(_RECEIVE_BYTES)
        ended = time.monotonic_ns()
        self._spins = ended - began < _SPIN_NS
        if wait:
            self._busy_since_ns = ended
        if not received:
            logger.info("Frontend disconnected.")
            sys.exit(0)
        self._buffer += received
        return True

    def _parse(self) -> bool:
        """Parse the complete requests in the buffer; true if the message ends after them."""
        data, unanswered, requests, pattern = self._buffer, self.unanswered, self._requests, self._pattern
        at = self._position
        try:
            while (length := unpack_number(data, at)[0]) != LIST_END:
                start = at + 4
                end = start + length
                id_ = data[start:end].decode()
                if id_ in unanswered:
                    at += unanswered[id_]
                elif match := pattern.read(data, end):
                    fields, end = match
                    requests.append(WireRequest(id_, length := end - at, pattern, fields))
                    at = end
                    # Where lengths vary, trying the next request's would only cost time.
                    if length == self._length:
                        for other_id, values in pattern.read_same_lengths(data, at, id_, fields):
                            if other_id not in unanswered:
                                requests.append(WireRequest(other_id, length, pattern, values))
                            at += length
                    self._length = length
                else:
                    matched, content, end = self._parse_request(data, end)
                    requests.append(WireRequest(id_, end - at, matched, content))
                    pattern = self._pattern
                    at = end
                self._position = at
            self._position = at + 4
            return True
        except struct.error:
            # The buffer ends within a request. Parse it from its start again when more has arrived.
            return False

    def _parse_request(self, data: bytearray, at: int) -> tuple[Pattern | None, Any, int]:
        """The pattern, content and end of the request whose headers start at ``at``; may make the reader's pattern."""
        headers, varying, headers_end = _parse_headers(data, at)
        parameters, properties, end = self._parse_parameters(data, headers_end)
        if TRACE_HEADER in headers and (fields := self._match_without_trace(headers, data[headers_end:end])):
            return self._pattern, fields, end
        properties.update(headers)
        if len(parameters) == 1 and not self._decodes:
            ((parameter, value),) = parameters.items()
            # The end of the list, 4 bytes, follows the value.
            starts = [at, *(stop for _, _, stop in varying)]
            stops = [*(start for _, start, _ in varying), end - 4 - len(value)]
            pieces = [bytes(data[start : stop - 4]) for start, stop in zip(starts, stops, strict=True)]
            self._pattern = Pattern(pieces, [name for name, _, _ in varying], parameter, dict(properties))
        return None, (RequestProcessor(properties), parameters), end

    def _match_without_trace(self, headers: Mapping[str, str], rest: bytearray) -> TracedFields | None:
        """The fields of a sampled request, if requests with its other headers match the pattern.

        One sampled request would otherwise separate its batch from the pattern of all other requests.

        Args:
            headers: of the request.
            rest: its bytes after them.
        """
        trace = {name: headers[name] for name in (TRACE_HEADER, START_HEADER) if name in headers}
        others = b"".join(_pack_text(name) + _pack_text(headers[name]) for name in headers if name not in trace)
        data = bytearray(others + _END) + rest
        match = self._pattern.read(data, 0)
        if not match:
            # Make a pattern.
            self._parse_request(data, 0)
            match = self._pattern.read(data, 0)
        return TracedFields(match[0], trace) if match else None

    def _parse_parameters(self, data: bytearray, at: int) -> tuple[dict[str, Any], dict[str, Any], int]:
        values: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        (length,) = unpack_number(data, at)
        at += 4
        while length != LIST_END:
            start, at = at, at + length
            (length,) = unpack_number(data, at)
            type_start = at + 4
            type_end = type_start + length
            (length,) = unpack_number(data, type_end)
            value_start = type_end + 4
            end = value_start + length
            # A number follows every field. If it can be unpacked, the field is complete.
            (length,) = unpack_number(data, end)
            name = data[start:at].decode()
            if name in values:
                name = RepeatedName(name)
            content_type = data[type_start:type_end].decode()
            value = data[value_start:end]
            values[name] = _decode(value, content_type) if self._decodes else value
            properties[name] = {"content-type": content_type}
            at = end + 4
        return values, properties, at


def make_batch(requests: Sequence[WireRequest]) -> Batch:
    """Requests as one batch."""
    ids = dict(enumerate([request.id for request in requests]))
    patterns = {request.pattern for request in requests}
    if len(patterns) == 1 and (pattern := patterns.pop()):
        fields = [request.content for request in requests]
        return Batch(Processors(pattern, fields), Bodies(pattern, fields), ids)
    processors, inputs = list[Any](), list[dict[str, Any]]()
    for _, _, pattern, content in requests:
        if pattern:
            processors.append(RequestProcessor(pattern.properties_of(content)))
            inputs.append({pattern.parameter: content[-1]})
        else:
            processors.append(content[0])
            inputs.append(content[1])
    return Batch(processors, inputs, ids)


def _parse_headers(data: bytearray, at: int) -> tuple[dict[str, str], list[tuple[str, int, int]], int]:
    """The headers that start at ``at``; name, start and end of each value of ``VARYING_HEADERS``; the headers' end."""
    headers: dict[str, str] = {}
    varying = []
    (length,) = unpack_number(data, at)
    at += 4
    while length != LIST_END:
        start, at = at, at + length
        (length,) = unpack_number(data, at)
        value_start = at + 4
        end = value_start + length
        (length,) = unpack_number(data, end)
        name = data[start:at].decode()
        headers[name] = data[value_start:end].decode()
        if name.lower() in VARYING_HEADERS:
            varying.append((name, value_start, end))
        at = end + 4
    return headers, varying, at


def _decode(value: bytearray, content_type: str) -> Any:
    """A parameter as TorchServe's reader returns it: parsed JSON, decoded text, or the bytes if that fails."""
    try:
        if content_type == "application/json":
            return json.loads(value.decode())
        return value.decode() if content_type.startswith("text") else value
    except (ValueError, RecursionError):
        logger.warning("Cannot decode a body as %s; passing its bytes to the handler", content_type)
        return value


class _Buffered:
    """A connection some of whose bytes are in a buffer already."""

    def __init__(self, buffer: bytearray, connection: socket.socket) -> None:
        self._buffer = buffer
        self._connection = connection

    def recv(self, size: int, /) -> bytes:
        buffered = bytes(self._buffer[:size])
        del self._buffer[:size]
        return buffered or self._connection.recv(size)


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Any = None,
    ts_stream_next: bool = False,
) -> Any:
    """The answers to a batch, in the same bytes as TorchServe's function of this name.

    Args:
        ret: the handler's answers; anything but a list of bytes is passed to TorchServe's function.
        req_id_map: as ``Batch.ids``.
        message: about the whole batch.
        code: HTTP status of the whole batch.
        context: holds each answer's status and headers; without it, the batch has failed.
        ts_stream_next: whether more answers to these requests follow.
    """
    if ret is not None and context is not None and not ts_stream_next and not context.stopping_criteria:
        text = message.encode()
        pieces = [_pack_number(code), _pack_number(len(text)), text]
        processors = context.request_processor
        at_once = type(processors) is Processors and processors.headers is not None
        shared_head = (processors.headers, None, None) if at_once else None
        # Most answers of a batch have the same head.
        last_head: tuple[Any, ...] = ()
        packed_head = b""
        for index, id_ in req_id_map.items():
            answer = ret[index]
            head = shared_head or _head(processors[index])
            if type(answer) is not bytes or head[0].get("ts_stream_next") == "true":
                break
            if head != last_head:
                packed_head, last_head = _pack_head(*head), head
            packed_id = id_.encode()
            pieces += (_pack_number(len(packed_id)), packed_id, packed_head, _pack_number(len(answer)), answer)
        else:
            pieces.append(_END)
            return b"".join(pieces)
    return upstream.create_predict_response(ret, req_id_map, message, code, context, ts_stream_next)


def _head(processor: Any) -> tuple[Mapping[str, str], int | None, str | None]:
    return (
        processor.get_response_headers(),
        processor.get_response_status_code(),
        processor.get_response_status_phrase(),
    )


def _pack_head(headers: Mapping[str, str], status: int | None, phrase: str | None) -> bytes:
    """The bytes between an answer's id and its body."""
    content_type = _pack_text(headers.get("content-type"))
    pairs = b"".join(_pack_text(name) + _pack_text(value) for name, value in headers.items())
    packed_status = _pack_number(200 if status is None else status)
    return content_type + packed_status + _pack_text(phrase) + _pack_number(len(headers)) + pairs


def _pack_text(value: str | None) -> bytes:
    encoded = (value or "").encode()
    return _pack_number(len(encoded)) + encoded
