"""A batch of requests that are alike: they differ in their ids and in the bytes of their only parameter, of one length.

For each request TorchServe gives a handler a dict and a ``RequestProcessor``. Of requests that are alike they are made
when a handler asks for the first of them, and one that answers all requests at once never does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ts.context import RequestProcessor


class Bodies(Sequence[Any]):
    """A handler's ``data``: for each request a dict of its parameter.

    Args:
        name: of the parameter.
        values: uint8 ``[N, length]``, the bytes of each request's parameter; writable.
    """

    def __init__(self, name: str, values: NDArray[np.uint8]) -> None:
        self.values = values
        self._name = name

    @functools.cached_property
    def _each(self) -> list[dict[str, bytearray]]:
        return [{self._name: bytearray(value)} for value in self.values]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> Any:
        return self._each[place]


class Processors(Sequence[Any]):
    """A context's ``request_processor``.

    Args:
        properties: each request's headers, and the content type of its parameter by the parameter's name.
        count: how many requests there are.

    Attributes:
        headers: of all answers, where a handler has answered all requests at once, each with status 200.
    """

    def __init__(self, properties: Mapping[str, Any], count: int) -> None:
        self.properties = properties
        self.headers: dict[str, str] | None = None
        self._count = count

    @functools.cached_property
    def _each(self) -> list[RequestProcessor]:
        return [RequestProcessor(dict(self.properties)) for _ in range(self._count)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        return self._each[place]
