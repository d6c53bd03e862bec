"""The errors of a call, and whether to retry it.

``retry`` is true if the same call may succeed a little later. The clients already retry those calls, so a caller gets
such an error only when all attempts have failed::

    FashionError
    ├── InputError              an argument is wrong: no such file, a wrong shape or type
    ├── ConnectError            no connection, or it broke before the answer was complete                  (retry)
    ├── TlsError                no secure connection: most often a certificate that this machine does not trust
    ├── AnswerTimeoutError      connected, but no answer in time
    ├── AnswerError             the answer is not fashion-serve's
    └── ProblemError            the service answered with a problem; holds its body
        ├── RefusedError        4xx: the request is wrong
        │   ├── NotAllowedError 401, 403: no API key, or a wrong one
        │   └── NotFoundError   404: no such model or version
        ├── BusyError           429, 503: too many requests, or no worker ready                            (retry)
        └── ServiceError        any other 5xx

``AnswerTimeoutError`` is not retried, because a second attempt would wait as long again for a service that is late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar


class FashionError(Exception):
    """Base class of this package's errors; the text is one line for people."""

    retry: ClassVar[bool] = False


class InputError(FashionError, ValueError):
    """An argument is wrong."""


class ConnectError(FashionError):
    """No connection to the service, or it broke. Safe to retry, because predictions change nothing."""

    retry = True


class TlsError(FashionError):
    """TLS failed, most often because of the certificate."""


class AnswerTimeoutError(FashionError):
    """The service took longer than the client's ``timeout``."""


class AnswerError(FashionError):
    """The answer is not fashion-serve's: another program listens there, or the versions do not match."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """An RFC 9457 problem body; missing members are empty.

    Attributes:
        status: the HTTP status code of the answer.
        title: the kind of problem, always in the same words.
        detail: what was wrong this time, and what is accepted.
        type: a URI that identifies the kind of problem.
        instance: identifies the request in the service's log.
    """

    status: int
    title: str
    detail: str = ""
    type: str = "about:blank"
    instance: str = ""

    def __str__(self) -> str:
        text = f"{self.title}: {self.detail}" if self.detail else self.title
        return f"{' '.join(text.split())} (HTTP {self.status})"


class ProblemError(FashionError):
    """The service answered with a problem.

    Attributes:
        problem: the problem's body.
        retry_after: seconds of the service's ``Retry-After``, None without one.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.retry_after = retry_after


class RefusedError(ProblemError):
    """4xx: the request is wrong and would be refused again."""


class NotAllowedError(RefusedError):
    """401 or 403: the API key is missing or wrong."""


class NotFoundError(RefusedError):
    """404: no such model, version or path."""


class BusyError(ProblemError):
    """429 or 503: the service cannot answer now."""

    retry = True


class ServiceError(ProblemError):
    """A 5xx other than 503: a fault of the service."""


def connect_error(url: str, error: Exception) -> ConnectError:
    """The error for a connection that failed or broke."""
    return ConnectError(f"no answer from {url} ({_reason(error)}); is the service running there?")


def tls_error(url: str, error: Exception, variable: str) -> TlsError:
    """The error for a failed TLS connection; ``variable`` holds the path of the file of trusted authorities."""
    return TlsError(
        f"no secure connection to {url} ({_reason(error)}); "
        f"if its certificate is from a private authority, set {variable} to that authority's file"
    )


def timeout_error(url: str, seconds: float) -> AnswerTimeoutError:
    """The error for an answer that did not arrive within ``seconds``."""
    return AnswerTimeoutError(f"no answer from {url} within {seconds:g} s")


def request_error(url: str, error: Exception) -> InputError:
    """The error for a request that cannot be sent."""
    return InputError(f"cannot send a request to {url} ({_reason(error)})")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, the root cause last. The others' messages only repeat the address and class names."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    *_, cause = causes(error)
    reason = cause.strerror if isinstance(cause, OSError) else None
    return " ".join((reason or str(cause)).split()) or type(cause).__name__


def problem_error(problem: Problem, retry_after: float | None = None) -> ProblemError:
    """The error for a problem's status."""
    by_status = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 429: BusyError, 503: BusyError}
    default = RefusedError if problem.status < 500 else ServiceError
    return by_status.get(problem.status, default)(problem, retry_after)
