"""What TorchServe hands to a handler, sorted: headers, parts, and the way by which the request came.

TorchServe keeps request headers in the case that the client wrote them, and puts the content types of multipart parts
in the same map, as ``{part name: {"content-type": …}}``. Its gRPC services give no headers at all.

The gateway sends forms as ``application/octet-stream``, so that TorchServe leaves them whole, and what they are in
``X-Content-Type``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from handlers.inputs import decoding
from handlers.inputs.decoding import Part

Way = Literal["http", "grpc", "grpc_oip"]


class Request(NamedTuple):
    """One request of a batch.

    Attributes:
        headers: names in lower case.
        parts: the body, or its parts in order.
        way: ``grpc`` and ``grpc_oip`` are TorchServe's own two gRPC inference services.
        task: what is asked for: ``describe`` comes from the front door, which sends the header of TorchServe's
            management API to have the model's metadata.
    """

    headers: dict[str, str]
    parts: list[Part]
    way: Way
    task: Literal["predict", "explain", "describe"]


def sort(data: Mapping[str, Any], found: Mapping[str, Any]) -> Request:
    """Sort one member of the handler's ``data``, with its map of headers and content types."""
    headers = {name.lower(): value for name, value in found.items() if type(value) is str}
    content_type = headers.get("content-type", "")
    way: Way = "http"
    # The frontend adds this header in lower case; a client's own in another case is a different key.
    task: Literal["predict", "explain", "describe"] = "explain" if found.get("explain") == "True" else "predict"
    if headers.get("describe") == "True":
        task, parts = "describe", []
    elif not headers:
        # OpenInferenceProtocolImpl is the only caller that states a content type and no header.
        oip = list(data) == ["body"] and found.get("body") == {"content-type": "application/json"}
        way, parts = "grpc_oip" if oip else "grpc", _parts(data, found)
    elif len(data) == 1 and ("x-content-type" in headers or not content_type.startswith((decoding.FORM, "multipart/"))):
        parts = [Part(_bytes(next(iter(data.values()))), headers.get("x-content-type", content_type))]
    elif content_type.startswith(decoding.FORM):
        parts = _rejoined(data)
    else:
        parts = _parts(data, found)
    return Request(headers, parts, way, task)


class Sorter:
    """Sorts one request after the other; one that differs from the one before in the body alone is sorted at once."""

    def __init__(self) -> None:
        self._found: Mapping[str, Any] | None = None
        self._request = Request({}, [], "http", "predict")

    def sort(self, data: Mapping[str, Any], found: Mapping[str, Any]) -> Request:
        """As the function ``sort`` does; a request that is like the one before shares its ``headers``, the object."""
        if found == self._found and len(data) == 1:
            ((headers, ((_, content_type),), way, task), (value,)) = self._request, data.values()
            return Request(headers, [Part(_bytes(value), content_type)], way, task)
        request = sort(data, found)
        if len(data) == len(request.parts) == 1 and request.parts[0].body is next(iter(data.values())):
            # Without the body, which may be large.
            self._found, self._request = found, request._replace(parts=[Part(b"", request.parts[0].content_type)])
        return request


def _rejoined(data: Mapping[str, Any]) -> list[Part]:
    """The body of a form: TorchServe has split it at & and =, which a client that sends JSON so did not mean."""
    fields = [
        name.encode("utf-8", "replace") + (b"=" + _bytes(value) if value else b"") for name, value in data.items()
    ]
    return [Part(b"&".join(fields), decoding.FORM)] if fields else []


def _parts(data: Mapping[str, Any], found: Mapping[str, Any]) -> list[Part]:
    described = {name: value for name, value in found.items() if type(value) is dict}
    return [Part(_bytes(value), described.get(name, {}).get("content-type", "")) for name, value in data.items()]


def _bytes(value: Any) -> bytes | bytearray:
    # Without TS_DECODE_INPUT_REQUEST=false, TorchServe has decoded JSON and text already.
    if isinstance(value, (bytearray, bytes)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()
