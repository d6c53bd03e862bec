"""Steady load on a gateway: checks every answer, and retries refused requests after their Retry-After."""

from __future__ import annotations

import collections
import threading
import time

import numpy as np
import requests

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 28, 28), np.uint8)
# For one request with all its attempts: several times a restart of the container.
REQUEST_TIMEOUT_S = 60.0


class Load:
    """Callers that send one image after another while the context is open.

    Attributes:
        outcomes: number of attempts by outcome: "right", "refused" (503 with Retry-After, or a connection that ended
            before any answer), or the description of an error.
        answered: requests that got a right answer in the end.
    """

    def __init__(self, url: str, callers: int = 8, model: str = "fashion_mlp") -> None:
        self._url = f"{url}/predictions/{model}"
        self._callers = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._expected = [self._send(requests.Session(), image).json()["class"] for image in IMAGES]
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.answered = 0

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()

    @property
    def wrong(self) -> dict[str, int]:
        """The outcomes that are errors."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome not in ("right", "refused")}

    def _send(self, session: requests.Session, image: np.ndarray) -> requests.Response:
        headers = {"Content-Type": "application/octet-stream"}
        return session.post(self._url, data=image.tobytes(), headers=headers, timeout=REQUEST_TIMEOUT_S)

    def _call(self, number: int) -> None:
        session = requests.Session()
        while not self._stop.is_set():
            number = (number + 1) % len(IMAGES)
            deadline = time.monotonic() + REQUEST_TIMEOUT_S
            while (outcome := self._try(session, number)) == "refused" and time.monotonic() < deadline:
                time.sleep(1)
            with self._lock:
                self.answered += outcome == "right"
                if outcome == "refused":
                    self.outcomes["gave up"] += 1

    def _try(self, session: requests.Session, number: int) -> str:
        try:
            answer = self._send(session, IMAGES[number])
        except requests.ConnectionError:
            outcome = "refused"
        except requests.RequestException as error:
            outcome = f"no answer: {type(error).__name__}"
        else:
            if answer.status_code == 200:
                outcome = "right" if answer.json()["class"] == self._expected[number] else "wrong answer"
            elif answer.status_code == 503 and answer.headers.get("Retry-After") == "1":
                outcome = "refused"
            else:
                outcome = f"{answer.status_code}: {answer.text[:200]}"
        with self._lock:
            self.outcomes[outcome] += 1
        return outcome
