"""TorchServe's frontend and a worker's pipeline: each caller gets its own answer, with one worker or several."""

import concurrent.futures
import threading

import numpy as np
import pytest
import requests

from serving.polling import wait_until
from tests.support import packing

# An answer that the frontend holds back never arrives, so this only has to exceed the slowest answer.
TIMEOUT_S = 30
CALLERS = 8


@pytest.fixture
def running(place):
    config = packing.CONFIG.replace("batchSize: 4", "batchSize: 16")
    packing.pack(place.settings.model_store, changes={"model-config.yaml": config})
    place.start()
    return place


class Callers:
    """Threads that send one request after another until ``stop``, each with inputs of its own."""

    def __init__(self, place, count=CALLERS):
        self._url = f"{place.inference}/predictions/tiny"
        self._weight = packing.network().weight.detach().numpy()
        self._stop = threading.Event()
        self._answers = [0] * count
        self._pool = concurrent.futures.ThreadPoolExecutor(CALLERS)
        self._calls = [self._pool.submit(self._call, seed) for seed in range(count)]

    def _call(self, seed):
        numbers = np.random.default_rng(seed)
        with requests.Session() as session:
            while not self._stop.is_set():
                row = numbers.uniform(-2, 2, 3).astype("<f4")
                answer = session.post(
                    self._url, row.tobytes(), headers={"Content-Type": "application/octet-stream"}, timeout=TIMEOUT_S
                )
                scores = np.exp(self._weight @ row)
                probabilities = [answer.json()["probabilities"][label] for label in packing.LABELS]
                np.testing.assert_allclose(probabilities, scores / scores.sum(), atol=1e-6)
                self._answers[seed] += 1

    def await_answers(self, count):
        """Wait until each caller has received ``count`` more answers."""
        goals = [received + count for received in self._answers]

        def reached():
            return all(received >= goal for received, goal in zip(self._answers, goals, strict=True))

        assert wait_until(lambda: reached() or any(call.done() for call in self._calls), TIMEOUT_S)

    def stop(self):
        """Stop the threads, and raise the error of any of them."""
        self._stop.set()
        for call in self._calls:
            call.result()


def call_alone(place, times=10):
    """Send requests with no other callers, whose requests could make the frontend continue."""
    for _ in range(times):
        answer = requests.post(f"{place.inference}/predictions/tiny", json=[1.0, 2.0, 3.0], timeout=TIMEOUT_S)
        assert answer.status_code == 200


def scale(place, count):
    answer = requests.put(
        f"{place.management}/models/tiny?min_worker={count}&max_worker={count}&synchronous=true", timeout=60
    )
    assert answer.status_code in (200, 202), answer.text
    assert wait_until(lambda: len(workers(place)) == count, 60)


def workers(place):
    (model,) = requests.get(f"{place.management}/models/tiny", timeout=TIMEOUT_S).json()
    return [worker for worker in model["workers"] if worker["status"] == "READY"]


def test_concurrent_callers_get_their_own_answers(running):
    call_alone(running)
    callers = Callers(running)
    callers.await_answers(100)
    callers.stop()
    call_alone(running)


def test_the_environment_can_select_torchserves_own_reader(place):
    packing.pack(place.settings.model_store)
    assert place.run("start", FASHION_WIRE="torchserve").returncode == 0
    callers = Callers(place)
    callers.await_answers(20)
    callers.stop()
    logged = (place.settings.logs / "workers.log").read_text()
    assert "Using TorchServe's own reader: FASHION_WIRE=torchserve" in logged
    assert "replaces the reader and writer of TorchServe" not in logged


def test_no_answer_is_held_back_while_workers_start_and_stop(running):
    for count in (2, 3, 1, 2, 1):
        # When TorchServe stops a worker it drops the worker's requests, so there must be none then.
        more = count > len(workers(running))
        callers = Callers(running, CALLERS if more else 0)
        # Under load too, a new worker blocks until the first has noticed it.
        scale(running, count)
        callers.await_answers(50)
        callers.stop()
        call_alone(running)
