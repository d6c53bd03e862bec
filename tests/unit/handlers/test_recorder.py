"""A whole handler, and what its recorder counts of each request."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from handlers import problems
from handlers.inputs import decoding
from handlers.metrics import recorder
from handlers.signature import Signature
from serving.polling import wait_until
from serving.sidecars.metrics import workers
from tests.support import image_files
from tests.support.signatures import FASHION, NUMBERS, VECTOR
from tests.unit.handlers.test_classifier import Served, _log_levels  # noqa: F401 (a fixture)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Returns a function that serves a signature's model: its result is a ``Served``, and a function that counts."""
    monkeypatch.setenv(recorder.VARIABLE, str(tmp_path / "counts"))

    def serve(signature: Signature):
        worker = Served(signature, tmp_path / "model")

        def count():
            assert worker.handler._recorder
            worker.handler._recorder.flush()
            return {
                (sample.name, *(value for name, value in sample.labels.items() if name not in ("model", "version"))): (
                    sample.value
                )
                for family in workers.read(tmp_path / "counts")
                for sample in family.samples
            }

        return worker, count

    return serve


def test_counts_a_mixed_batch(served):
    worker, count = served(FASHION)
    picture = image_files.texture(seed=1)
    raw = picture.tobytes()
    instances = json.dumps({"instances": [picture.tolist()]}).encode()
    inference = {
        "inputs": [{"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": picture.ravel().tolist()}]
    }
    headers = {"explain": "False", "Host": "x"}
    requests = [
        (image_files.save(picture), {**headers, "Content-Type": "image/png"}),
        (raw, {**headers, "Content-Type": "application/octet-stream"}),
        (raw * 3, {**headers, "Content-Type": "application/octet-stream", "Accept": "application/x-npy"}),
        (instances, {**headers, "Content-Type": "application/json"}),
        (json.dumps(inference).encode(), {**headers, "Content-Type": "application/json"}),
        (b"{", {**headers, "Content-Type": "application/json"}),
        (raw[:-1], {**headers, "Content-Type": "application/octet-stream"}),
        (raw, {**headers, "Content-Type": "application/zip"}),
    ]
    statuses = [answer[0] for answer in worker.batch(*requests)]
    assert statuses == [200, 200, 200, 200, 200, 400, 422, 415]
    counts = count()
    assert {key[1:]: value for key, value in counts.items() if key[0] == "fashion_requests_total" and value} == {
        ("png", "200"): 1,
        ("raw", "200"): 2,
        ("kserve_v1", "200"): 1,
        ("oip", "200"): 1,
        ("json", "400"): 1,
        ("raw", "422"): 1,
        ("unknown", "415"): 1,
    }
    assert {key[1]: value for key, value in counts.items() if key[0] == "fashion_rejected_total" and value} == {
        "malformed": 1,
        "unprocessable": 1,
        "unsupported-format": 1,
    }
    assert (counts["fashion_examples_total",], counts["fashion_executions_total",]) == (7, 1)
    assert sum(value for key, value in counts.items() if key[0] == "fashion_predictions_total") == 7
    assert counts["fashion_batch_requests_sum",] == 8
    for stage in recorder.STAGES:
        assert counts["fashion_stage_seconds_count", stage] == 5
        assert 0 < counts["fashion_stage_seconds_sum", stage] < 60


def test_counts_requests_answered_by_the_fast_path(served):
    worker, count = served(FASHION)
    pictures = [image_files.texture(seed=seed) for seed in range(3)]
    assert worker.batch_of_one_pattern([picture.tobytes() for picture in pictures], "application/octet-stream")[0]
    assert worker.batch_of_one_pattern([image_files.save(picture) for picture in pictures], "image/png")[0]
    counts = count()
    assert {key[1:]: value for key, value in counts.items() if key[0] == "fashion_requests_total" and value} == {
        ("png", "200"): 3,
        ("raw", "200"): 3,
    }
    assert (counts["fashion_fast_path_total", "answered"], counts["fashion_fast_path_total", "failed"]) == (2, 0)
    assert counts["fashion_examples_total",] == 6
    assert counts["fashion_batch_requests_sum",] == 6
    for stage in recorder.STAGES:
        assert counts["fashion_stage_seconds_count", stage] == 6


def test_counts_and_logs_once_that_the_fast_path_fails(served, monkeypatch, caplog):
    worker, count = served(FASHION)

    def fail(*_):
        raise TypeError("another numpy")

    monkeypatch.setattr(decoding, "pictures", fail)
    for _ in range(3):
        is_fast, answers = worker.batch_of_one_pattern([bytes(784)] * 2, "application/octet-stream")
        assert (is_fast, [answer[0] for answer in answers]) == (False, [200, 200])
    counts = count()
    assert (counts["fashion_fast_path_total", "answered"], counts["fashion_fast_path_total", "failed"]) == (0, 3)
    assert counts["fashion_requests_total", "raw", "200"] == 6
    (record,) = caplog.records
    assert (record.levelname, record.message.partition(";")[0]) == ("WARNING", "The fast path failed")
    assert "TypeError: another numpy" in caplog.text


def test_counts_a_fault_of_the_service(served, monkeypatch):
    worker, count = served(VECTOR)

    def fail(_):
        raise RuntimeError("out of order")

    monkeypatch.setattr(worker.handler, "_scores", fail)
    assert worker.one(np.zeros(4, "<f4").tobytes(), "application/octet-stream")[0] == 500
    counts = count()
    assert counts["fashion_requests_total", "raw", "500"] == 1
    assert counts["fashion_examples_total",] == 0
    assert counts["fashion_stage_seconds_count", "decode"] == 0


def test_plain_numbers_count_as_examples_and_not_as_predictions(served):
    worker, count = served(NUMBERS)
    worker.one(np.ones((3, 4), "<f4").tobytes(), "application/octet-stream")
    counts = count()
    assert counts["fashion_examples_total",] == 3
    assert not [name for name, *_ in counts if name.startswith(("fashion_predictions", "fashion_confidence"))]
    assert ("fashion_model_accuracy",) not in counts


def test_the_recorder_flushes_by_itself(served):
    worker, count = served(VECTOR)
    recorder = worker.handler._recorder
    worker.one(np.zeros(4, "<f4").tobytes(), "application/octet-stream")
    # The recorder's own thread empties the queue, because ``count`` was not called yet.
    assert wait_until(lambda: not recorder._batches, 10)
    assert wait_until(lambda: count()["fashion_requests_total", "raw", "200"] == 1, 10)


class ScriptedLoad:
    """A worker's busy seconds and seconds of requests, one after another."""

    def __init__(self, busy, requests):
        self.busy_seconds, self.request_seconds = iter(busy).__next__, iter(requests).__next__


@pytest.mark.parametrize(("batched", "row"), [(True, 0), (False, 1)])
def test_counts_the_seconds_in_which_a_worker_is_busy(tmp_path, batched, row):
    began = time.monotonic()
    counter = recorder.Recorder(tmp_path, VECTOR, ScriptedLoad([1.5, 1.5, 4.0], [0.0] * 3), batched)

    def counted(name):
        (family,) = (family for family in workers.read(tmp_path) if family.name == name)
        values = [sample.value for sample in family.samples if sample.name.endswith("_total")]
        assert values[1 - row] == 0
        return values[row]

    busy, loaded = [], []
    for _ in range(3):
        time.sleep(0.01)
        counter.flush()
        busy.append(counted("fashion_worker_busy_seconds"))
        loaded.append(counted("fashion_worker_seconds"))
    assert busy == [1.5, 1.5, 4.0]
    assert loaded == sorted(loaded)
    assert 0.03 <= loaded[-1] <= time.monotonic() - began


def test_the_requests_in_work_are_the_mean_of_the_last_flushes(tmp_path, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    # Three requests for 20 s, then none. The other worker has one for all the time.
    requests = [3.0 * min(second, 20) for second in range(1, 41)]
    changing = recorder.Recorder(tmp_path, VECTOR, ScriptedLoad([0.0] * 40, requests))
    shown = []
    for _ in range(40):
        changing.flush()
        shown.extend(values("fashion_requests_in_work", tmp_path))
    assert shown[:20] == [3.0] * 20
    assert shown[20:] == pytest.approx([3.0 * (19 - second) / 20 for second in range(20)])
    now = iter(range(2))
    other = recorder.Recorder(tmp_path, VECTOR, ScriptedLoad([0.0], [1.0]))
    other.flush()
    assert values("fashion_requests_in_work", tmp_path) == [1.0]


def test_a_worker_that_has_ended_has_no_requests(tmp_path):
    working = recorder.Recorder(tmp_path, VECTOR, ScriptedLoad([2.0] * 5, [1e6] * 5))
    for _ in range(5):
        working.flush()
    assert values("fashion_requests_in_work", tmp_path)[0] > 0
    del working
    assert values("fashion_requests_in_work", tmp_path) == [0.0]
    # Its counts stay.
    assert max(values("fashion_worker_busy_seconds", tmp_path)) == 2.0


def values(name, folder):
    return [sample.value for family in workers.read(folder) if family.name == name for sample in family.samples]


def test_a_worker_that_cannot_measure_its_load_has_no_metrics_of_it(tmp_path):
    recorder.Recorder(tmp_path, VECTOR).flush()
    names = {family.name for family in workers.read(tmp_path)}
    assert not names & {"fashion_worker_busy_seconds", "fashion_requests_in_work"}


def test_without_a_folder_there_is_no_recorder(monkeypatch):
    monkeypatch.delenv(recorder.VARIABLE, raising=False)
    assert recorder.open_recorder(VECTOR) is None


def test_a_folder_that_cannot_be_made_is_a_warning_only(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(recorder.VARIABLE, str(tmp_path / "file" / "counts"))
    assert recorder.open_recorder(VECTOR) is None
    assert recorder.VARIABLE in caplog.text


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/png", "png"),
        ("Image/JPEG; q=1", "jpeg"),
        ("image/jpg", "jpeg"),
        ("image/tiff", "tiff"),
        ("image/heif", "heic"),
        ("image/jxl", "image"),
        ("image/image", "image"),
        ("application/octet-stream", "raw"),
        ("application/x-npy", "npy"),
        ("application/json; charset=utf-8", "json"),
        ("application/vnd.x+json", "json"),
        ("multipart/form-data; boundary=x", "multipart"),
        ("application/x-www-form-urlencoded", "form"),
        ("text/plain", "text"),
        ("", "none"),
        ("application/zip", "unknown"),
    ],
)
def test_the_format_of_a_content_type(content_type, name):
    assert recorder.format_of(content_type) == name
    assert name in recorder.FORMATS


def test_every_problem_of_a_handler_has_a_status_series():
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, problems.Problem)]
    kinds.remove(problems.Problem)
    assert sorted(str(kind.status) for kind in kinds) == sorted(set(recorder.STATUSES) - {"200"})
