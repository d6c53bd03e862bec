"""Requests that got no answer, as errors that say what to do."""

from __future__ import annotations

from fashion_client.errors import AnswerTimeoutError, ConnectError, InputError, TlsError


def connection(url: str, error: Exception) -> ConnectError:
    """No connection, or one that broke."""
    return ConnectError(f"no answer from {url} ({_reason(error)}); is the service running there?")


def tls(url: str, error: Exception, variable: str) -> TlsError:
    """No secure connection; ``variable`` names the file of trusted authorities."""
    return TlsError(
        f"no secure connection to {url} ({_reason(error)}); "
        f"if its certificate comes from an authority of your own, name that authority's file in {variable}"
    )


def timeout(url: str, seconds: float) -> AnswerTimeoutError:
    """No answer within ``seconds``."""
    return AnswerTimeoutError(f"no answer from {url} within {seconds:g} s")


def request(url: str, error: Exception) -> InputError:
    """Nothing that could be sent."""
    return InputError(f"no request can be made to {url} ({_reason(error)})")


def innermost(error: BaseException) -> BaseException:
    """What the error began with: the exceptions around it repeat the address and name classes of libraries."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _reason(error: Exception) -> str:
    cause = innermost(error)
    reason = cause.strerror if isinstance(cause, OSError) else None
    return " ".join((reason or str(cause)).split()) or type(cause).__name__
