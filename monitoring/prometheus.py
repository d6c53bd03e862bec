"""A client of Prometheus' HTTP API."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import requests

# A query of the dashboard takes milliseconds, on a busy machine seconds.
_TIMEOUT_S = 30.0


class QueryError(Exception):
    """Prometheus does not answer, or rejects the query; the message has the reason."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One series of a query's result.

    Attributes:
        labels: name → value.
        times: seconds since 1970; a single one for an instant query.
        values: one for each time; NaN values are left out.
    """

    labels: dict[str, str]
    times: list[float]
    values: list[float]


class Prometheus:
    """A Prometheus at one address.

    Args:
        url: its address, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def query(self, expression: str) -> list[Series]:
        """The current result of an expression: the series that have a value.

        Raises:
            QueryError: Prometheus does not answer, or rejects the expression.
        """
        result = self.get("query", query=expression)["result"]
        return _series([(each["metric"], [each["value"]]) for each in result])

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """The results of an expression over time.

        Args:
            expression: PromQL.
            start, end: seconds since 1970.
            step: seconds between two values.

        Raises:
            QueryError: Prometheus does not answer, or rejects the query.
        """
        result = self.get("query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}")["result"]
        return _series([(each["metric"], each["values"]) for each in result])

    def get(self, path: str, **query: str) -> Any:
        """The ``data`` of the API's answer.

        Raises:
            QueryError: Prometheus does not answer, or rejects the query.
        """
        try:
            answer = self._session.get(f"{self._url}/api/v1/{path}", params=query, timeout=_TIMEOUT_S)
            document = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise QueryError(f"Prometheus at {self._url} does not answer: {error}") from error
        if document["status"] != "success":
            raise QueryError(f"{document['error']}: {query}")
        return document["data"]


def _series(result: list[tuple[dict[str, str], list[tuple[float, str]]]]) -> list[Series]:
    series = []
    for labels, pairs in result:
        points = [(time, float(value)) for time, value in pairs if not math.isnan(float(value))]
        if points:
            series.append(Series(labels, [time for time, _ in points], [value for _, value in points]))
    return series
