"""How long the clients wait between attempts."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from fashion_client import BusyError, ConnectError, FashionError, InputError, Problem, RefusedError
from fashion_client.errors import problem_error
from fashion_client.retrying import LONGEST_BACKOFF_S, parse_retry_after, wait_before_retry


def busy(retry_after: float | None) -> BusyError:
    return BusyError(Problem(503, "Busy"), retry_after)


@pytest.mark.parametrize(
    ("failed", "longest"), [(1, 0.2), (2, 0.4), (3, 0.8), (6, LONGEST_BACKOFF_S), (50, LONGEST_BACKOFF_S)]
)
def test_the_wait_grows_to_a_limit_and_is_random(failed: int, longest: float) -> None:
    waits = [wait_before_retry(ConnectError("…"), failed, 100) for _ in range(400)]
    assert all(wait is not None and 0 <= wait <= longest for wait in waits)
    # 400 even draws miss a tenth of the range at its end about once in 10^18 times.
    assert max(wait or 0 for wait in waits) > 0.9 * longest
    assert min(wait or 0 for wait in waits) < 0.1 * longest


def test_the_random_wait_is_added_to_retry_after() -> None:
    waits = [wait_before_retry(busy(7.0), 1, 3) for _ in range(100)]
    assert all(wait is not None and 7.0 <= wait <= 7.2 for wait in waits)
    assert len(set(waits)) > 1


def test_a_retry_after_above_a_minute_is_not_waited_for() -> None:
    assert wait_before_retry(busy(60.0), 1, 3) is not None
    assert wait_before_retry(busy(3600.0), 1, 3) is None


def test_retries_are_limited() -> None:
    assert wait_before_retry(busy(None), 3, 3) is not None
    assert wait_before_retry(busy(None), 4, 3) is None
    assert wait_before_retry(busy(None), 1, 0) is None


@pytest.mark.parametrize(
    "error",
    [InputError("…"), RefusedError(Problem(422, "Wrong"), 0.0), FashionError("…")],
    ids=lambda e: type(e).__name__,
)
def test_permanent_errors_are_not_retried(error: FashionError) -> None:
    assert wait_before_retry(error, 1, 3) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
    ],
    ids=repr,
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = parse_retry_after(formatdate(time.time() + 100, usegmt=True))
    # Dates have whole seconds. A difference of hours would mean a wrong time zone.
    assert seconds is not None
    assert 0 < seconds <= 100


def test_only_429_and_503_are_retried() -> None:
    retried = [status for status in range(400, 600) if problem_error(Problem(status, "…")).retry]
    assert retried == [429, 503]
