"""Messages to a worker, as TorchServe's ``ModelRequestEncoder`` writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

END = struct.pack(">i", -1)


def field(value: bytes | str) -> bytes:
    """A text or a body with its length."""
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
    """The message that has requests answered."""
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
    """The message that has a model loaded; ``size`` is the most requests of a batch."""
    texts = field(model) + field(path) + struct.pack(">i", size) + field(handler)
    return b"L" + texts + struct.pack(">i", gpu) + field(envelope) + struct.pack(">?", limited)
