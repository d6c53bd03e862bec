"""When to make a failed call again.

The wait before try n + 1 is drawn evenly from 0 to ``min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**n)`` seconds ("full
jitter": M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015), so that clients turned away together
do not come back together. A ``Retry-After`` of the service comes first, and the drawn time after it.
"""

from __future__ import annotations

import email.utils
import random
import time

from fashion_client.errors import FashionError, ProblemError

FIRST_BACKOFF = 0.2
LONGEST_BACKOFF = 5.0
# A service that asks for more than this is not coming back soon: the caller had better know now.
LONGEST_RETRY_AFTER = 60.0


def wait_before_retry(error: FashionError, failed: int, retries: int) -> float | None:
    """How long to wait before the next try.

    Args:
        error: what the last try ended with.
        failed: tries that have failed so far, at least 1.
        retries: how many repetitions are allowed.

    Returns:
        Seconds, or None if the call is not to be repeated.
    """
    if not error.retry or failed > retries:
        return None
    asked = error.retry_after if isinstance(error, ProblemError) else None
    if asked is not None and asked > LONGEST_RETRY_AFTER:
        return None
    # Not a secret: the standard generator will do.
    return (asked or 0.0) + random.uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (failed - 1)))


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
