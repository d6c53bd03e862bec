"""Client threads that send requests to the model ``tiny`` without a pause."""

from __future__ import annotations

import collections
import threading

import requests

from serving.polling import wait_until
from tests.support import packing


class Callers:
    """A context manager with four clients that send requests without a pause.

    Attributes:
        versions: the number of answers of each version.
        failures: the errors and wrong answers.
        broken: how often a connection ended before its answer, so that the request was sent again.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/predictions/tiny"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(4)]
        self.versions: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.broken = 0

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        assert wait_until(lambda: self.versions.total() > 20, 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    answer = self._send(session)
                except requests.RequestException as error:
                    self.failures.append(str(error))
                    continue
                if answer.status_code != 200 or answer.json()["label"] not in packing.LABELS:
                    self.failures.append(f"{answer.status_code} {answer.text}")
                self.versions[answer.headers.get("X-Model-Version", "")] += 1

    def _send(self, session: requests.Session) -> requests.Response:
        try:
            return session.post(self._url, json=[1, 2, 3], timeout=30)
        except requests.ConnectionError:
            # A reload of the gateway closes idle connections. The client library retries in the same way.
            self.broken += 1
            return session.post(self._url, json=[1, 2, 3], timeout=30)
