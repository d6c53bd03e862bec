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


def _reason(error: BaseException) -> str:
    # The outer exceptions repeat the address and name classes of libraries; the innermost says what happened.
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    reason = error.strerror if isinstance(error, OSError) else None
    return " ".join((reason or str(error)).split()) or type(error).__name__
