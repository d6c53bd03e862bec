"""When to retry a failed call.

The wait after attempt n is drawn evenly from 0 to ``min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**(n - 1))`` seconds
("full jitter": M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015), so that clients refused
together do not retry together. The service's ``Retry-After`` is added to it.
"""

from __future__ import annotations

import email.utils
import random
import time

from fashion_client.errors import FashionError, ProblemError

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
# A service that requests a longer wait will not be back soon, so the caller gets the error at once.
LONGEST_RETRY_AFTER_S = 60.0


def wait_before_retry(error: FashionError, failed: int, retries: int) -> float | None:
    """How long to wait before the next attempt.

    Args:
        error: the last attempt's error.
        failed: the number of failed attempts, at least 1.
        retries: the number of retries allowed.

    Returns:
        Seconds, or None if the call must not be retried.
    """
    if not error.retry or failed > retries:
        return None
    retry_after = error.retry_after if isinstance(error, ProblemError) else None
    if retry_after is not None and retry_after > LONGEST_RETRY_AFTER_S:
        return None
    longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (failed - 1))
    return (retry_after or 0.0) + random.uniform(0.0, longest)  # noqa: S311 (a delay is not a secret)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header (RFC 9110, 10.2.3: seconds or an HTTP date), None if there is none."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())
