"""What can go wrong with a call, and whether to make it again.

One base class; ``retry`` says whether the same call, unchanged, may succeed a little later. The clients repeat exactly
those calls by themselves, so an error that arrives with ``retry`` set has outlasted all its tries::

    FashionError
    ├── InputError              an argument is at fault: no such file, a wrong shape or type
    ├── ConnectError            no connection, or it broke before the answer was whole                     (retry)
    ├── TlsError                no secure connection: most often a certificate that this machine does not trust
    ├── AnswerTimeoutError      connected, but no answer in time
    ├── AnswerError             an answer that is not what this service promises
    └── ProblemError            the service answered with a problem; carries its body
        ├── RefusedError        4xx: the request is at fault
        │   ├── NotAllowedError 401, 403: no API key, or a wrong one
        │   └── NotFoundError   404: no such model or version
        ├── BusyError           429, 503: too many requests, or no worker ready                            (retry)
        └── ServiceError        any other 5xx

``AnswerTimeoutError`` is not repeated because a second try would wait as long again, at a service that is already late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar


class FashionError(Exception):
    """Base of everything that this package raises on purpose; its text is one line for people."""

    retry: ClassVar[bool] = False


class InputError(FashionError, ValueError):
    """An argument at fault."""


class ConnectError(FashionError):
    """No connection to the service, or a connection that broke; predictions change nothing, so it is safe to repeat."""

    retry = True


class TlsError(FashionError):
    """TLS failed, most often over the certificate."""


class AnswerTimeoutError(FashionError):
    """The service took longer than the client's ``timeout``."""


class AnswerError(FashionError):
    """An answer that is not what fashion-serve promises: something else is listening, or versions do not match."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """An RFC 9457 problem body; a member that the service left out is empty.

    Attributes:
        status: the HTTP status code of the answer.
        title: what kind of problem it is, the same sentence each time.
        detail: what was wrong this time, and what is accepted.
        type: a URI for programs that tell problems apart.
        instance: names the request in the service's log.
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
    """The service answered, but with a problem.

    Attributes:
        problem: the problem's body.
        retry_after: seconds that the service asked to wait, None if it named no time.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.retry_after = retry_after


class RefusedError(ProblemError):
    """4xx: the request is at fault and would be refused again."""


class NotAllowedError(RefusedError):
    """401 or 403: the service wants an API key, or another one."""


class NotFoundError(RefusedError):
    """404: there is no such model, version or path."""


class BusyError(ProblemError):
    """429 or 503: the service cannot answer now."""

    retry = True


class ServiceError(ProblemError):
    """A 5xx other than 503: a fault of the service."""


def connect_error(url: str, error: Exception) -> ConnectError:
    """No connection, or one that broke."""
    return ConnectError(f"no answer from {url} ({_reason(error)}); is the service running there?")


def tls_error(url: str, error: Exception, variable: str) -> TlsError:
    """No secure connection; ``variable`` names the file of trusted authorities."""
    return TlsError(
        f"no secure connection to {url} ({_reason(error)}); "
        f"if its certificate comes from an authority of your own, name that authority's file in {variable}"
    )


def timeout_error(url: str, seconds: float) -> AnswerTimeoutError:
    """No answer within ``seconds``."""
    return AnswerTimeoutError(f"no answer from {url} within {seconds:g} s")


def request_error(url: str, error: Exception) -> InputError:
    """Nothing that could be sent."""
    return InputError(f"no request can be made to {url} ({_reason(error)})")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, the first cause last: the others repeat the address and name library classes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    *_, cause = causes(error)
    reason = cause.strerror if isinstance(cause, OSError) else None
    return " ".join((reason or str(cause)).split()) or type(cause).__name__


def problem_error(problem: Problem, retry_after: float | None = None) -> ProblemError:
    """The error that goes with a problem's status."""
    by_status = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 429: BusyError, 503: BusyError}
    otherwise = RefusedError if problem.status < 500 else ServiceError
    return by_status.get(problem.status, otherwise)(problem, retry_after)
