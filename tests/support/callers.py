"""Clients that call the model ``tiny`` without a pause while something else happens."""

from __future__ import annotations

import collections
import threading

import requests

from serving.polling import wait_until
from tests.support import packing


class Callers:
    """Clients that call without a pause while this is a context manager.

    Attributes:
        versions: how many answers each version gave.
        failures: what came in place of an answer.
        broken: how often a connection ended before the answer, and the request was sent once more.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/predictions/tiny"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
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

    def _ask(self) -> None:
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
            # The gateway closes idle connections when it takes up a configuration; the client's library repeats.
            self.broken += 1
            return session.post(self._url, json=[1, 2, 3], timeout=30)
