"""A request that is alone in flight is answered by a worker without batches, which is part of its version."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator

import grpc
import psutil
import pytest
import requests

from serving.polling import wait_until
from serving.sidecars.grpc.proto import open_inference_pb2
from serving.supervisor import parts
from serving.torchserve.management import UNBATCHED, Management
from tests.support import packing
from tests.support.callers import Callers
from tests.support.place import Place, make_place

QUICK = ("--grace", "0.5")
CONFIG = packing.CONFIG + "unbatchedWorker: true\n"
WITH_BOTH = {"model-config.yaml": CONFIG}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A service with ``tiny`` 1.0; its model store has 1.1, and 1.2, which has no worker without batches."""
    folder = tmp_path_factory.mktemp("lone")
    place = make_place(folder, folder / "model_store")
    packing.pack(place.settings.model_store, changes=WITH_BOTH)
    place.start()
    packing.pack(place.settings.model_store, version="1.1", changes=WITH_BOTH)
    packing.pack(place.settings.model_store, version="1.2")
    yield place
    place.end()


def _worker(place: Place, registration: str) -> psutil.Process:
    (worker,) = requests.get(f"{place.management}/models/{registration}", timeout=10).json()[0]["workers"]
    return psutil.Process(worker["pid"])


@contextlib.contextmanager
def _suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _answer(place: Place, path: str = "tiny", timeout: float = 10) -> str:
    """The version that answers."""
    answer = requests.post(f"{place.gateway}/predictions/{path}", json=[1, 2, 3], timeout=timeout)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Model-Version"]


def _done(place: Place, *command: str) -> None:
    result = place.run(*command)
    assert result.returncode == 0, result.stdout + result.stderr


def _chunked(place: Place) -> int:
    return requests.post(f"{place.gateway}/predictions/tiny", data=iter([b"[1, 2, 3]"]), timeout=10).status_code


def test_a_request_that_is_alone_waits_for_no_batch(place):
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == _answer(place, "tiny/1.0") == "1.0"
        assert _chunked(place) == 200


def test_a_second_request_in_flight_is_answered_with_batches(place):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with _suspended(_worker(place, UNBATCHED + "tiny")):
            two = {pool.submit(_answer, place, timeout=30) for _ in range(2)}
            answered, waiting = concurrent.futures.wait(two, 10, concurrent.futures.FIRST_COMPLETED)
            assert (len(answered), len(waiting)) == (1, 1)
        assert {each.result() for each in two} == {"1.0"}
    # The next one is alone again.
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == "1.0"


def test_a_lone_call_by_grpc_waits_for_no_batch(place):
    request = open_inference_pb2.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="features", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([1, 2, 3])
    with grpc.insecure_channel(place.grpc) as channel, _suspended(_worker(place, "tiny")):
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=open_inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=open_inference_pb2.ModelInferResponse.FromString,
        )
        assert infer(request, timeout=10).model_version == "1.0"


def test_both_registrations_are_one_version(place):
    assert Management(place.management).names() == ["tiny"]
    (model,) = Management(place.management).versions("tiny")
    assert (model.version, len(model.workers), model.ready) == ("1.0", 2, True)
    assert requests.get(f"{place.gateway}/v1/models", timeout=10).json() == {"models": ["tiny"]}
    assert requests.get(f"{place.gateway}/v2/models/tiny", timeout=10).json()["versions"] == ["1.0"]
    assert requests.post(f"{place.gateway}/v2/repository/index", timeout=10).json()[0]["name"] == "tiny"
    for path in (f"{UNBATCHED}tiny", f"{UNBATCHED}tiny/1.0"):
        answer = requests.post(f"{place.gateway}/predictions/{path}", json=[1, 2, 3], timeout=10)
        assert answer.status_code == 404
    with _suspended(_worker(place, "tiny")):
        before = _requests(place)
        for _ in range(5):
            _answer(place)
        # Workers write their counts several times a second: also those of the tests before.
        assert wait_until(lambda: _requests(place) >= before + 5, 5)


def _requests(place: Place) -> int:
    answer = requests.get(f"{place.gateway}/v2/models/tiny/versions/1.0/stats", timeout=10)
    return int(answer.json()["model_stats"][0]["inference_stats"]["success"]["count"])


def test_a_killed_worker_without_batches_is_replaced(place):
    worker = _worker(place, UNBATCHED + "tiny")
    worker.kill()
    # Requests are answered meanwhile.
    assert _answer(place) == "1.0"
    assert wait_until(lambda: place.run("status").returncode == 0, 60)
    assert _worker(place, UNBATCHED + "tiny") != worker


def test_a_rollout_changes_both(place):
    with Callers(place.gateway) as callers:
        _done(place, "deploy", "tiny", "1.1", *QUICK)
        before = callers.versions["1.1"]
        assert wait_until(lambda: callers.versions["1.1"] > before + 20, 10)
    assert not callers.failures
    for name in ("tiny", UNBATCHED + "tiny"):
        (version,) = requests.get(f"{place.management}/models/{name}/all", timeout=10).json()
        assert version["modelVersion"] == "1.1"
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == "1.1"
    _done(place, "rollback", "tiny", *QUICK)
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == "1.0"


def test_a_lone_caller_reaches_a_canary(place):
    _done(place, "canary", "tiny", "1.1", "--percent", "50")
    versions = {_answer(place) for _ in range(40)}
    assert versions == {"1.0", "1.1"}
    assert _answer(place, "tiny/1.1") == "1.1"
    _done(place, "abort", "tiny", *QUICK)
    assert {_answer(place) for _ in range(10)} == {"1.0"}


def test_a_version_without_such_a_worker_is_answered_with_batches(place):
    _done(place, "canary", "tiny", "1.2", "--percent", "50")
    assert {_answer(place) for _ in range(40)} == {"1.0", "1.2"}
    _done(place, "promote", "tiny", *QUICK)
    assert {_answer(place) for _ in range(10)} == {"1.2"}
    assert _chunked(place) == 200
    assert Management(place.management).unbatched() == set()
    _done(place, "rollback", "tiny", *QUICK)
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == "1.0"


def test_a_restarted_frontend_has_both(place):
    before = place.pid(parts.FRONTEND)
    place.process(parts.FRONTEND).kill()
    assert wait_until(lambda: place.pid(parts.FRONTEND) not in (0, before), 30)
    assert wait_until(lambda: place.run("status").returncode == 0, 60)
    with _suspended(_worker(place, "tiny")):
        assert _answer(place) == "1.0"
