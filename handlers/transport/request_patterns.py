"""One client's requests mostly differ in little: their ids, the bytes of their only parameter, values of few headers.

A ``Pattern`` is what they share, so that a request is told by comparing bytes. For each request TorchServe gives a
handler a dict and a ``RequestProcessor``; those of a batch of one pattern are made when a handler asks for the first of
them, and one that answers all requests at once never does.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ts.context import RequestProcessor

# Headers with a value for each request. Neither has a say in the answer, but for the id in what is said of an error.
OWN_HEADERS = frozenset(("content-length", "x-request-id"))

# The end of a list, read as unsigned: a length can then only lead forward.
LAST = 0xFFFFFFFF
number_at = struct.Struct(">I").unpack_from
_packed = struct.Struct(">I").pack
_END = _packed(LAST)

# The values of a request's own headers, bytes or a bytearray, and last that of its parameter, a bytearray.
Fields = Sequence[Any]


class Pattern:
    """What the requests of one client share.

    Args:
        pieces: of a request's message after its id, what stands before the length of each of its ``Fields``.
        headers: names of the headers with values of their own.
        parameter: name of the only parameter.
        properties: all headers of one of the requests, and the content type of its parameter by the parameter's name.
    """

    def __init__(
        self, pieces: Sequence[bytes], headers: Sequence[str], parameter: str, properties: Mapping[str, Any]
    ) -> None:
        self.parameter = parameter
        self.properties = properties
        self._pieces = [(piece, len(piece) + 4) for piece in pieces]
        self._headers = headers

    def read(self, data: bytearray, at: int) -> tuple[Fields, int] | None:
        """The fields of the request whose headers start at ``at``, and where it ends; ``None`` if it is another's.

        Raises:
            struct.error: the data end within the request.
        """
        places = []
        for piece, length in self._pieces:
            if not data.startswith(piece, at):
                return None
            start = at + length
            at = start + number_at(data, start - 4)[0]
            places.append((start, at))
        if number_at(data, at)[0] != LAST:
            return None
        return [data[start:end] for start, end in places], at + 4

    def like(self, data: bytearray, at: int, name: str, fields: Fields) -> Iterator[tuple[str, Fields]]:
        """The ids and fields of the requests that follow at ``at``, up to one where any is not as long as that given.

        So they are read twice as quickly as one after another.
        """
        row, shared = _row(tuple(piece for piece, _ in self._pieces), (len(name), *map(len, fields)))
        value_end = row.size - len(_END)
        value_start = value_end - len(fields[-1])
        for start in range(at, len(data) - row.size + 1, row.size):
            found = row.unpack_from(data, start)
            if found[::2] != shared or found[-1] != _END:
                return
            yield found[1].decode(), [*found[3:-1:2], data[start + value_start : start + value_end]]

    def properties_of(self, fields: Fields) -> dict[str, Any]:
        """The headers of the request with these fields, and the content type of its parameter."""
        own = zip(self._headers, fields, strict=False)
        return {**self.properties, **{name: value.decode() for name, value in own}}


@functools.lru_cache(maxsize=16)
def _row(pieces: tuple[bytes, ...], lengths: tuple[int, ...]) -> tuple[struct.Struct, tuple[bytes, ...]]:
    """Reads all of a request of a pattern but its parameter, by the lengths of its id and fields; what it shares."""
    shared = [piece + _packed(length) for piece, length in zip((b"", *pieces), lengths, strict=True)]
    ways = [f"{len(before)}s{length}" for before, length in zip(shared, lengths, strict=True)]
    return struct.Struct("s".join(ways) + f"x{len(_END)}s"), tuple(shared)


class _Listed(Sequence[Any]):
    """Something for each request of a batch, made when the first is asked for."""

    def __init__(self, pattern: Pattern, fields: Sequence[Fields]) -> None:
        self.pattern = pattern
        self._fields = fields

    @functools.cached_property
    def _each(self) -> list[Any]:
        return [self._made(fields) for fields in self._fields]

    def _made(self, fields: Fields) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, place: Any) -> Any:
        return self._each[place]


class Bodies(_Listed):
    """A handler's ``data``: for each request a dict of its parameter."""

    def values(self) -> list[bytearray]:
        """The bytes of each request's parameter."""
        return [fields[-1] for fields in self._fields]

    def _made(self, fields: Fields) -> dict[str, bytearray]:
        return {self.pattern.parameter: fields[-1]}


class Processors(_Listed):
    """A context's ``request_processor``.

    Attributes:
        headers: of all answers, where a handler has answered all requests at once, each with status 200.
    """

    headers: dict[str, str] | None = None

    def _made(self, fields: Fields) -> RequestProcessor:
        return RequestProcessor(self.pattern.properties_of(fields))
