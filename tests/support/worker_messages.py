"""Messages to a worker, as TorchServe's ``ModelRequestEncoder`` writes them, and the worker's answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

END = struct.pack(">i", -1)


def field(value: bytes | str) -> bytes:
    """A text or a body after its length."""
    encoded = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">i", len(encoded)) + encoded


def request(
    name: str,
    headers: Mapping[str, str],
    parameters: Iterable[tuple[bytes | str, bytes | str, bytes]],
) -> bytes:
    """One request of a batch: its id, headers, and parameters of name, content type and value."""
    pairs = b"".join(field(key) + field(value) for key, value in headers.items())
    return field(name) + pairs + END + b"".join(b"".join(map(field, each)) for each in parameters) + END


def batch(*requests: bytes) -> bytes:
    """The message that carries a batch of requests."""
    return b"I" + b"".join(requests) + END


def load(
    model: str,
    path: str,
    size: int = 1,
    handler: str = "vector_classifier.py",
    gpu: int = -1,
    envelope: str = "",
    limited: bool = True,
) -> bytes:
    """The message that loads a model; ``size`` is the batch size."""
    texts = field(model) + field(path) + struct.pack(">i", size) + field(handler)
    return b"L" + texts + struct.pack(">i", gpu) + field(envelope) + struct.pack(">?", limited)


class Answers:
    """A worker's answers, read field by field from a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def number(self) -> int:
        (number,) = struct.unpack(">i", self.stream.read(4))
        return int(number)

    def text(self) -> bytes:
        return self.stream.read(self.number())

    def read(self) -> tuple[int, bytes, list[dict[str, Any]]]:
        """Code, message, and for each answer its id, content type, status, phrase, headers and body."""
        code, message, answers = self.number(), self.text(), []
        while (length := self.number()) != -1:
            name = self.stream.read(length).decode()
            answer = {"id": name, "content-type": self.text().decode(), "status": self.number(), "phrase": self.text()}
            answer["headers"] = {self.text().decode(): self.text().decode() for _ in range(self.number())}
            answers.append({**answer, "body": self.text()})
        return code, message, answers


class Pieces:
    """A connection that delivers a stream in pieces with the given ends."""

    def __init__(self, stream: bytes, ends: Iterable[int] = ()) -> None:
        self._stream, self._at = stream, 0
        self._ends = sorted({end for end in ends if 0 < end < len(stream)} | {len(stream)})

    def recv(self, size: int, _flags: int = 0) -> bytes:
        end = next((end for end in self._ends if end > self._at), self._at)
        piece = self._stream[self._at : min(end, self._at + size)]
        self._at += len(piece)
        return piece
