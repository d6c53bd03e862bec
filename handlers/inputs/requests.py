"""What TorchServe hands to a handler, parsed: headers, parts, protocol and task of each request.

TorchServe keeps request headers in the case that the client used. It puts the content types of multipart parts in the
same map, as ``{part name: {"content-type": …}}``. Its gRPC services pass no headers at all.

The gateway sends forms as ``application/octet-stream``, so that TorchServe leaves them whole. It puts their own content
type in ``X-Content-Type``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from handlers.inputs import multipart
from handlers.inputs.multipart import Part

_FORMS = (multipart.URL_ENCODED, "multipart/")

Protocol = Literal["http", "grpc", "grpc_oip"]
Task = Literal["predict", "explain", "describe"]


class Request(NamedTuple):
    """One request of a batch.

    Attributes:
        headers: names in lower case.
        parts: the body, or its parts in order.
        protocol: ``grpc`` and ``grpc_oip`` are TorchServe's own two gRPC inference services.
        task: ``describe`` is a request for the model's metadata. The front door sends it, with the header that
            TorchServe's management API uses.
    """

    headers: dict[str, str]
    parts: list[Part]
    protocol: Protocol
    task: Task


def parse(data: Mapping[str, Any], properties: Mapping[str, Any]) -> Request:
    """Parse one member of the handler's ``data``, with TorchServe's map of its headers and content types."""
    headers = {name.lower(): value for name, value in properties.items() if type(value) is str}
    content_type = headers.get("content-type", "")
    protocol: Protocol = "http"
    # The frontend adds this header in lower case; a client's own in another case is a different key.
    task: Task = "explain" if properties.get("explain") == "True" else "predict"
    if headers.get("describe") == "True":
        task, parts = "describe", []
    elif not headers:
        # OpenInferenceProtocolImpl is the only caller that states a content type and no header.
        is_oip = list(data) == ["body"] and properties.get("body") == {"content-type": "application/json"}
        protocol, parts = "grpc_oip" if is_oip else "grpc", _parts(data, properties)
    elif len(data) == 1 and ("x-content-type" in headers or not content_type.startswith(_FORMS)):
        parts = [Part(_bytes(next(iter(data.values()))), headers.get("x-content-type", content_type))]
    elif content_type.startswith(multipart.URL_ENCODED):
        parts = _rejoined(data)
    else:
        parts = _parts(data, properties)
    return Request(headers, parts, protocol, task)


class Parser:
    """Parses requests in turn, and reuses the last result for a request that differs only in its body."""

    def __init__(self) -> None:
        self._properties: Mapping[str, Any] | None = None
        self._request = Request({}, [], "http", "predict")

    def parse(self, data: Mapping[str, Any], properties: Mapping[str, Any]) -> Request:
        """As the function ``parse``; a request like the last one shares its ``headers``, the same object."""
        if properties == self._properties and len(data) == 1:
            ((headers, (part,), protocol, task), (value,)) = self._request, data.values()
            return Request(headers, [Part(_bytes(value), part.content_type)], protocol, task)
        request = parse(data, properties)
        if len(data) == len(request.parts) == 1 and request.parts[0].body is next(iter(data.values())):
            # Without the body, which may be large.
            self._properties = properties
            self._request = request._replace(parts=[Part(b"", request.parts[0].content_type)])
        return request


def _rejoined(data: Mapping[str, Any]) -> list[Part]:
    """A form's body put together again: TorchServe split it at & and =, which may be bytes of JSON or base64."""
    fields = [
        name.encode("utf-8", "replace") + (b"=" + _bytes(value) if value else b"") for name, value in data.items()
    ]
    return [Part(b"&".join(fields), multipart.URL_ENCODED)] if fields else []


def _parts(data: Mapping[str, Any], properties: Mapping[str, Any]) -> list[Part]:
    described = {name: value for name, value in properties.items() if type(value) is dict}
    return [Part(_bytes(value), described.get(name, {}).get("content-type", "")) for name, value in data.items()]


def _bytes(value: Any) -> bytes | bytearray:
    # Without TS_DECODE_INPUT_REQUEST=false, TorchServe has already decoded JSON and text.
    if isinstance(value, (bytearray, bytes)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()
