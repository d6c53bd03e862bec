"""Questions to a Prometheus, over its HTTP API."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import requests

# Seconds.
_TIMEOUT = 30.0


class QueryError(Exception):
    """Prometheus does not answer, or cannot answer this; the message has its reason."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        labels: by name.
        times: seconds since 1970; one where an instant was asked for.
        values: as many; never NaN, which is left out with its time.
    """

    labels: dict[str, str]
    times: list[float]
    values: list[float]


class Prometheus:
    """A Prometheus at one address.

    Args:
        url: without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def now(self, expression: str) -> list[Series]:
        """What an expression gives now: the series that have a value.

        Raises:
            QueryError: see there.
        """
        found = self.get("query", query=expression)["result"]
        return _series([(one["metric"], [one["value"]]) for one in found])

    def between(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """What an expression gave over time.

        Args:
            expression: in PromQL.
            start, end: seconds since 1970.
            step: seconds between two values.

        Raises:
            QueryError: see there.
        """
        found = self.get("query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}")["result"]
        return _series([(one["metric"], one["values"]) for one in found])

    def get(self, path: str, **query: str) -> Any:
        """The ``data`` of an answer of the API.

        Raises:
            QueryError: see there.
        """
        try:
            answer = self._session.get(f"{self._url}/api/v1/{path}", params=query, timeout=_TIMEOUT)
            told = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise QueryError(f"Prometheus at {self._url} does not answer: {error}") from error
        if told["status"] != "success":
            raise QueryError(f"{told['error']}: {query}")
        return told["data"]


def _series(found: list[tuple[dict[str, str], list[tuple[float, str]]]]) -> list[Series]:
    series = []
    for labels, pairs in found:
        read = [(time, float(value)) for time, value in pairs if not math.isnan(float(value))]
        if read:
            series.append(Series(labels, [time for time, _ in read], [value for _, value in read]))
    return series
