"""How a failure behind the bridge is told to a gRPC caller.

    HTTP            gRPC                 why
    400, 415, 422   INVALID_ARGUMENT     the request must be changed
    401             UNAUTHENTICATED
    403             PERMISSION_DENIED
    404             NOT_FOUND            no such model or version
    413             RESOURCE_EXHAUSTED   the code that gRPC itself gives a message over the size limit
    429             RESOURCE_EXHAUSTED
    500             INTERNAL             a fault of this service
    503, 507        UNAVAILABLE          no worker, a full queue, or a GPU out of memory: safe to try again
    504             DEADLINE_EXCEEDED
    any other       UNKNOWN
    no answer       UNAVAILABLE          TorchServe is not there, or broke the connection

After ``google/rpc/code.proto``, where it has the HTTP code. ``docs/api.md`` repeats the table for callers.
"""

from __future__ import annotations

import grpc

from serving.errors import CallError

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.UNAVAILABLE,
}

# gRPC sends a status's text as an HTTP/2 header, and headers have a limit of 8 kB altogether.
_DETAIL_LENGTH = 2000


def status(error: CallError) -> tuple[grpc.StatusCode, str]:
    """The gRPC status and text of a failure that has an HTTP status."""
    return _CODES.get(error.status, grpc.StatusCode.UNKNOWN), error.detail[:_DETAIL_LENGTH]
