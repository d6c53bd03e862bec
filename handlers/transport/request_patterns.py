"""Recognize requests with the same headers by comparing bytes.

Consecutive requests usually have identical headers except for their ids and lengths, and one parameter, the body. A
``Pattern`` holds what they share. TorchServe passes a dict and a ``RequestProcessor`` for each request to the handler.
For a batch of one pattern, these are created when the handler first reads one. A handler that answers the whole batch
at once never does.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ts.context import RequestProcessor

# Headers that differ per request. They don't affect the answer (the id appears in error bodies).
VARYING_HEADERS = frozenset(("content-length", "x-request-id"))

# Headers of sampled requests only: W3C Trace Context's, and the time at which the request was passed to TorchServe, as
# "t=" and seconds since 1970. They don't affect the answer either.
TRACE_HEADER, START_HEADER = "traceparent", "X-Request-Start"

# The -1 that ends a list. Numbers are read as unsigned, so that no length moves the reader backwards.
LIST_END = 0xFFFFFFFF
unpack_number = struct.Struct(">I").unpack_from
_pack_number = struct.Struct(">I").pack
_PACKED_END = _pack_number(LIST_END)

# The values of a request's varying headers (bytes or bytearray), then the value of its parameter (a bytearray).
Fields = Sequence[Any]


class TracedFields(list[Any]):
    """The ``Fields`` of a sampled request, which matches a pattern except for its trace headers.

    Args:
        fields: of the request.
        headers: its trace headers.
    """

    def __init__(self, fields: Fields, headers: Mapping[str, str]) -> None:
        super().__init__(fields)
        self.headers = headers


class Pattern:
    """What similar requests share.

    Args:
        pieces: the shared bytes before the length of each of a request's ``Fields``; the first piece follows the id.
        headers: names of the varying headers.
        parameter: name of the only parameter.
        properties: all headers of one of the requests, and its parameter's content type under the parameter's name.
    """

    def __init__(
        self, pieces: Sequence[bytes], headers: Sequence[str], parameter: str, properties: Mapping[str, Any]
    ) -> None:
        self.parameter = parameter
        self.properties = properties
        self._pieces = [(piece, len(piece) + 4) for piece in pieces]
        self._headers = headers

    def read(self, data: bytearray, at: int) -> tuple[Fields, int] | None:
        """The fields and the end of the request whose headers start at ``at``; ``None`` if it does not match.

        Raises:
            struct.error: the data ends within the request.
        """
        spans = []
        for piece, length in self._pieces:
            if not data.startswith(piece, at):
                return None
            start = at + length
            at = start + unpack_number(data, start - 4)[0]
            spans.append((start, at))
        if unpack_number(data, at)[0] != LIST_END:
            return None
        return [data[start:end] for start, end in spans], at + 4

    def read_same_lengths(self, data: bytearray, at: int, id_: str, fields: Fields) -> Iterator[tuple[str, Fields]]:
        """The ids and fields of the requests that start at ``at``, while these are as long as the given id and fields.

        Takes half the time of ``read`` for each request, because one ``struct`` layout unpacks all of a request.
        """
        layout, shared = _layout(tuple(piece for piece, _ in self._pieces), (len(id_), *map(len, fields)))
        value_end = layout.size - len(_PACKED_END)
        value_start = value_end - len(fields[-1])
        for start in range(at, len(data) - layout.size + 1, layout.size):
            values = layout.unpack_from(data, start)
            if values[::2] != shared or values[-1] != _PACKED_END:
                return
            yield values[1].decode(), [*values[3:-1:2], data[start + value_start : start + value_end]]

    def properties_of(self, fields: Fields) -> dict[str, Any]:
        """The headers of the request with these fields, and its parameter's content type."""
        varying = zip(self._headers, fields, strict=False)
        trace = fields.headers if type(fields) is TracedFields else {}
        return {**self.properties, **{name: value.decode() for name, value in varying}, **trace}


@functools.lru_cache(maxsize=16)
def _layout(pieces: tuple[bytes, ...], lengths: tuple[int, ...]) -> tuple[struct.Struct, tuple[bytes, ...]]:
    """A layout for requests whose id and fields have these lengths, and the shared bytes that it unpacks.

    It unpacks shared bytes and fields in turn, and skips the parameter.
    """
    shared = [piece + _pack_number(length) for piece, length in zip((b"", *pieces), lengths, strict=True)]
    formats = [f"{len(before)}s{length}" for before, length in zip(shared, lengths, strict=True)]
    return struct.Struct("s".join(formats) + f"x{len(_PACKED_END)}s"), tuple(shared)


class _PerRequest(Sequence[Any]):
    """A sequence with one item for each request of a batch; all are created when the first is read."""

    def __init__(self, pattern: Pattern, fields: Sequence[Fields]) -> None:
        self.pattern = pattern
        self._fields = fields

    @functools.cached_property
    def _items(self) -> list[Any]:
        return [self._make(fields) for fields in self._fields]

    def _make(self, fields: Fields) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]


class Bodies(_PerRequest):
    """A handler's ``data``: for each request, a dict with its parameter."""

    def values(self) -> list[bytearray]:
        """The bytes of each request's parameter."""
        return [fields[-1] for fields in self._fields]

    def _make(self, fields: Fields) -> dict[str, bytearray]:
        return {self.pattern.parameter: fields[-1]}


class Processors(_PerRequest):
    """A context's ``request_processor``: for each request, a ``RequestProcessor``.

    Attributes:
        headers: set by a handler that answers all requests at once: the headers of each answer, with status 200.
    """

    headers: dict[str, str] | None = None

    def traces(self) -> list[tuple[str, str]]:
        """The values of ``TRACE_HEADER`` and ``START_HEADER`` of each sampled request."""
        traced = [fields.headers for fields in self._fields if type(fields) is TracedFields]
        return [(headers[TRACE_HEADER], headers.get(START_HEADER, "")) for headers in traced]

    def _make(self, fields: Fields) -> RequestProcessor:
        return RequestProcessor(self.pattern.properties_of(fields))
