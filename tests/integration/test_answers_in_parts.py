"""TorchServe's frontend and the pipeline of a worker: every caller gets its own answer, with one worker or several."""

import concurrent.futures
import threading

import numpy as np
import pytest
import requests

from serving.polling import wait_until
from tests.support import packing

# An answer that is kept back never comes.
TIMEOUT = 30
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
        self._answers = [0] * count
        self._pool = concurrent.futures.ThreadPoolExecutor(LOAD)
        self._asking = [self._pool.submit(self._ask, seed) for seed in range(count)]

    def _ask(self, seed):
        numbers = np.random.default_rng(seed)
        with requests.Session() as session:
            while not self._stop.is_set():
                row = numbers.uniform(-2, 2, 3).astype("<f4")
                answer = session.post(
                    self._url, row.tobytes(), headers={"Content-Type": "application/octet-stream"}, timeout=TIMEOUT
                )
                scores = np.exp(self._weight @ row)
                found = [answer.json()["probabilities"][label] for label in packing.LABELS]
                np.testing.assert_allclose(found, scores / scores.sum(), atol=1e-6)
                self._answers[seed] += 1

    def await_answers(self, count):
        """Wait until each caller has received ``count`` more answers."""
        wanted = [got + count for got in self._answers]

        def have():
            return all(got >= least for got, least in zip(self._answers, wanted, strict=True))

        assert wait_until(lambda: have() or any(asking.done() for asking in self._asking), TIMEOUT)

    def stop(self):
        """Have them stop; raises what a caller raised."""
        self._stop.set()
        for asking in self._asking:
            asking.result()


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
    assert wait_until(lambda: len(workers(place)) == count, 60)


def workers(place):
    (described,) = requests.get(f"{place.management}/models/tiny", timeout=TIMEOUT).json()
    return [worker for worker in described["workers"] if worker["status"] == "READY"]


def test_callers_at_a_time_get_their_own_answers(running):
    ask_alone(running)
    callers = Callers(running)
    callers.await_answers(100)
    callers.stop()
    ask_alone(running)


def test_torchserves_own_code_serves_where_the_environment_says_so(place):
    packing.pack(place.settings.model_store)
    assert place.run("start", FASHION_WIRE="torchserve").returncode == 0
    callers = Callers(place)
    callers.await_answers(20)
    callers.stop()
    logged = (place.settings.logs / "workers.log").read_text()
    assert "TorchServe's reader serves: FASHION_WIRE=torchserve" in logged
    assert "reads and writes in the place of TorchServe" not in logged


def test_answers_are_not_kept_back_while_workers_come_and_go(running):
    for count in (2, 3, 1, 2, 1):
        # TorchServe drops what a worker has when it takes it away, so then nobody asks.
        more = count > len(workers(running))
        callers = Callers(running, LOAD if more else 0)
        # A worker that comes waits until the others know of it, under load too.
        scale(running, count)
        callers.await_answers(50)
        callers.stop()
        ask_alone(running)
