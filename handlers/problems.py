"""The errors of a request, and the body that reports them to the caller (RFC 9457, ``application/problem+json``).

Decoding and encoding raise only these exceptions. The handler turns each into the answer of the request that caused
it::

    Problem
    ├── Malformed            400  the bytes are not what they claim to be (truncated PNG, broken JSON, bad npy header)
    ├── NotAcceptable        406  ``Accept`` allows none of the answer's formats
    ├── TooLarge             413  more bytes, pixels, images or nesting than ``handlers.limits`` allows
    ├── UnsupportedFormat    415  a format or content type that the model does not take
    ├── Unprocessable        422  well formed, but of the wrong shape, range or value
    ├── Internal             500  an error of this service, while answering one request
    └── Unavailable          503  the GPU is out of memory, or large images are decoded; it may succeed soon

The text of a problem stands where it is raised, above all in ``handlers.inputs``.

``type`` is a URN and not a URL, so that a deployment needs no public page for it. ``docs/api.md`` documents each
exception under the last part of its ``type``.
"""

from __future__ import annotations

from typing import ClassVar

import orjson

CONTENT_TYPE = "application/problem+json"
# The end of every refusal of an image's size.
SMALLER_IMAGE = "send a smaller picture, such as 1000x1000 pixels; the answer is the same"
TYPE_PREFIX = "urn:problem-type:fashion-serve:"


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it a problem)
    """An error that a request gets as its answer; ``detail`` says what was received and what is accepted.

    Attributes:
        status: HTTP status code.
        phrase: reason phrase of the status.
        title: a short sentence, the same for every problem of this type.
        type: the type's URI.
        detail: what was wrong with this request, in one or two sentences.
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

        ``instance`` holds the request id, as the answer's ``x-request-id`` header does. ``error`` repeats ``detail``
        for clients of the Open Inference Protocol, which read the reason there.
        """
        # A detail that quotes the request may contain lone surrogates, which JSON in UTF-8 cannot hold.
        detail = self.detail.encode("utf-8", "backslashreplace").decode()
        content = {"type": self.type, "title": self.title, "status": self.status, "detail": detail}
        return orjson.dumps({**content, "instance": "urn:uuid:" + request_id, "error": detail})


class Malformed(Problem):
    """The bytes are not what they claim to be."""

    status = 400
    phrase = "Bad Request"
    title = "The request cannot be read"
    type = TYPE_PREFIX + "malformed"


class NotAcceptable(Problem):
    """``Accept`` excludes every format that the answer can have."""

    status = 406
    phrase = "Not Acceptable"
    title = "The answer is not available in an accepted format"
    type = TYPE_PREFIX + "not-acceptable"


class TooLarge(Problem):
    """The request exceeds one of ``handlers.limits``."""

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
    """An error of this service, not of the request; its traceback is in the worker's log."""

    status = 500
    phrase = "Internal Server Error"
    title = "The service failed on this request"
    type = TYPE_PREFIX + "internal"


class Unavailable(Problem):
    """The worker has no memory for this request now; repeating it is safe."""

    status = 503
    phrase = "Service Unavailable"
    title = "The service cannot answer just now"
    type = TYPE_PREFIX + "unavailable"


# Collected here, before other modules define subclasses.
KINDS = tuple(Problem.__subclasses__())
