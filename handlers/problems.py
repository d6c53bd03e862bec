"""What can be wrong with a request, and how the caller is told (RFC 9457, ``application/problem+json``).

One exception hierarchy. Decoding and encoding raise its members and nothing else; the handler turns each into the
answer of the one request that caused it::

    Problem
    ├── Malformed            400  the bytes are not what they claim to be (truncated PNG, broken JSON, bad npy header)
    ├── NotAcceptable        406  no form of answer that ``Accept`` allows
    ├── TooLarge             413  more bytes, pixels, images or nesting than ``handlers.limits`` allows
    ├── UnsupportedFormat    415  a format or content type that the model does not take
    ├── Unprocessable        422  well formed, but of the wrong shape, range or value
    ├── Internal             500  a fault of this service, met while answering one request
    └── Unavailable          503  the GPU is out of memory; the same request may succeed in a moment

``type`` is a URN and not an address, so that a deployment needs no public page to go with it. What each member means
is documented in ``docs/api.md`` under the last part of its ``type``.
"""

from __future__ import annotations

from typing import ClassVar

import orjson

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:problem-type:fashion-serve:"


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it a problem)
    """One request cannot be answered as asked; ``detail`` says what was received and what is accepted.

    Attributes:
        status: HTTP status code.
        phrase: reason phrase that goes with the status.
        title: the same short sentence for every occurrence of this type.
        type: the type's URI.
        detail: what was wrong this time, in one or two sentences.
    """

    status: ClassVar[int]
    phrase: ClassVar[str]
    title: ClassVar[str]
    type: ClassVar[str]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def body(self, request_id: str) -> bytes:
        """The RFC 9457 body.

        ``instance`` names the request by the id that its ``x-request-id`` answer header has. ``error`` repeats
        ``detail`` for clients of the Open Inference Protocol, who look for the reason there.
        """
        # Lone surrogates reach a detail when it quotes what was received; JSON in UTF-8 cannot hold them.
        detail = self.detail.encode("utf-8", "backslashreplace").decode()
        told = {"type": self.type, "title": self.title, "status": self.status, "detail": detail}
        return orjson.dumps({**told, "instance": "urn:uuid:" + request_id, "error": detail})


class Malformed(Problem):
    """The bytes are not what they claim to be."""

    status = 400
    phrase = "Bad Request"
    title = "The request cannot be read"
    type = TYPE_PREFIX + "malformed"


class NotAcceptable(Problem):
    """``Accept`` rules out every form of answer that this request can have."""

    status = 406
    phrase = "Not Acceptable"
    title = "The answer cannot have the form that was asked for"
    type = TYPE_PREFIX + "not-acceptable"


class TooLarge(Problem):
    """More than one request may hold; ``handlers.limits`` has the limits."""

    status = 413
    phrase = "Content Too Large"
    title = "The request is too large"
    type = TYPE_PREFIX + "too-large"


class UnsupportedFormat(Problem):
    """A format or content type that the model does not take."""

    status = 415
    phrase = "Unsupported Media Type"
    title = "The format is not supported"
    type = TYPE_PREFIX + "unsupported-format"


class Unprocessable(Problem):
    """The request can be read, but its shape, range or an option's value is wrong."""

    status = 422
    phrase = "Unprocessable Content"
    title = "The request has a wrong shape, range or value"
    type = TYPE_PREFIX + "unprocessable"


class Internal(Problem):
    """A fault of this service, not of the request; its traceback is in the worker's log."""

    status = 500
    phrase = "Internal Server Error"
    title = "The service failed on this request"
    type = TYPE_PREFIX + "internal"


class Unavailable(Problem):
    """The worker has no room for this request now; repeating it is safe."""

    status = 503
    phrase = "Service Unavailable"
    title = "The service cannot answer just now"
    type = TYPE_PREFIX + "unavailable"


# Taken here, before other programs add kinds of their own.
KINDS = tuple(Problem.__subclasses__())
