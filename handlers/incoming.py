"""What TorchServe hands to a handler, sorted: headers, parts, and the way the request came.

TorchServe keeps request headers in the case that the client wrote them, and puts the content types of multipart parts
in the same map, as ``{part name: {"content-type": …}}``. Its gRPC services give no headers at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson

from handlers import decoding
from handlers.decoding import Part

Way = Literal["http", "grpc", "grpc_oip"]


class Request(NamedTuple):
    """One request of a batch.

    Attributes:
        headers: names in lower case.
        parts: the body, or its parts in order.
        way: ``grpc`` and ``grpc_oip`` are TorchServe's own two gRPC inference services.
    """

    headers: dict[str, str]
    parts: list[Part]
    way: Way


def sort(data: Mapping[str, Any], found: Mapping[str, Any]) -> Request:
    """Sort one member of the handler's ``data``, with its map of headers and content types."""
    headers = {name.lower(): value for name, value in found.items() if type(value) is str}
    content_type = headers.get("content-type", "")
    if not headers:
        return Request(headers, _parts(data, found), "grpc_oip" if _comes_from_oip(data, found) else "grpc")
    if len(data) == 1 and not content_type.startswith(("multipart/", decoding.FORM)):
        return Request(headers, [Part(_bytes(next(iter(data.values()))), content_type)], "http")
    if content_type.startswith(decoding.FORM):
        # TorchServe has split the body at & and =, which is not what a client that sends JSON so had in mind.
        body = b"&".join(
            name.encode("utf-8", "replace") + (b"=" + bytes(value) if value else b"") for name, value in data.items()
        )
        return Request(headers, [Part(body, decoding.FORM)] if body else [], "http")
    return Request(headers, _parts(data, found), "http")


def _parts(data: Mapping[str, Any], found: Mapping[str, Any]) -> list[Part]:
    parts = []
    for name, value in data.items():
        described = found.get(name)
        content_type = described.get("content-type", "") if type(described) is dict else ""
        parts.append(Part(_bytes(value), content_type))
    return parts


def _comes_from_oip(data: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    # OpenInferenceProtocolImpl is the only caller that states a content type and no header.
    return list(data) == ["body"] and found.get("body") == {"content-type": "application/json"}


def _bytes(value: Any) -> decoding.Body:
    # Without TS_DECODE_INPUT_REQUEST=false, TorchServe has decoded JSON and text already.
    if isinstance(value, (bytearray, bytes)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return orjson.dumps(value)
