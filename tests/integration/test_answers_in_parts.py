"""TorchServe's frontend and the pipeline of a worker: every caller gets its own answer, with one worker or several."""

import concurrent.futures
import itertools
import threading
import time

import numpy as np
import pytest
import requests

from tests import packing

# No answer here takes a tenth of this, unless it is kept back.
TIMEOUT = 5
LOAD = 8


@pytest.fixture
def running(place):
    config = packing.CONFIG.replace("batchSize: 4", "batchSize: 16")
    packing.pack(place.settings.model_store, changes={"model-config.yaml": config})
    place.start()
    return place


class Callers:
    """Callers who ask one after another, each for what it alone asks for, until they are told to stop."""

    def __init__(self, place, count=LOAD):
        self._url = f"{place.inference}/predictions/tiny"
        self._weight = packing.network().weight.detach().numpy()
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(LOAD)
        self._asking = [self._pool.submit(self._ask, seed) for seed in range(count)]

    def _ask(self, seed):
        numbers = np.random.default_rng(seed)
        with requests.Session() as session:
            for asked in itertools.count():
                if self._stop.is_set():
                    return asked
                row = numbers.uniform(-2, 2, 3).astype("<f4")
                answer = session.post(
                    self._url, row.tobytes(), headers={"Content-Type": "application/octet-stream"}, timeout=TIMEOUT
                )
                scores = np.exp(self._weight @ row)
                found = [answer.json()["probabilities"][label] for label in packing.LABELS]
                np.testing.assert_allclose(found, scores / scores.sum(), atol=1e-6)
        raise AssertionError

    def stop(self):
        """How many answers each caller got; raises what a caller raised."""
        self._stop.set()
        return [asking.result() for asking in self._asking]


def ask_alone(place, times=10):
    """One caller, who has nobody beside him that would have the frontend go on."""
    for _ in range(times):
        answer = requests.post(f"{place.inference}/predictions/tiny", json=[1.0, 2.0, 3.0], timeout=TIMEOUT)
        assert answer.status_code == 200


def scale(place, count):
    answer = requests.put(
        f"{place.management}/models/tiny?min_worker={count}&max_worker={count}&synchronous=true", timeout=60
    )
    assert answer.status_code in (200, 202), answer.text
    deadline = time.monotonic() + 60
    while len(workers(place)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(place):
    (described,) = requests.get(f"{place.management}/models/tiny", timeout=TIMEOUT).json()
    return [worker for worker in described["workers"] if worker["status"] == "READY"]


def test_callers_at_a_time_get_their_own_answers(running):
    ask_alone(running)
    callers = Callers(running)
    time.sleep(2)
    assert min(callers.stop()) > 10
    ask_alone(running)


def test_answers_are_not_kept_back_while_workers_come_and_go(running):
    for count in (2, 3, 1, 2, 1):
        # TorchServe drops what a worker has when it takes it away, so then nobody asks.
        more = count > len(workers(running))
        callers = Callers(running, LOAD if more else 0)
        # A worker that comes waits until the others know of it, under load too.
        scale(running, count)
        time.sleep(0.5)
        callers.stop()
        ask_alone(running)
