"""Many examples in one call: pieces, order, concurrent requests, progress."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fashion_client import (
    AnswerError,
    BusyError,
    FashionClient,
    InputError,
    Prediction,
    Predictions,
    RefusedError,
    _inputs,
)
from fashion_client.asynchronous import AsyncFashionClient
from fashion_client.client import _in_order

from tests.support.scripted_service import NPY, Drop, Reply, ScriptedService, expected, png, problem
from tests.support.signatures import LABELS

REFUSAL = problem(422, "Wrong", "not an image")


def images(count: int) -> np.ndarray:
    """Images uint8 [N, 28, 28] whose labels repeat with another period than a piece's length."""
    batch = np.empty((count, 28, 28), np.uint8)
    batch[:] = (np.arange(count) * 7 % 251)[:, None, None]
    return batch


def test_the_predictions_of_an_array_are_in_order(connect: Any, service: ScriptedService) -> None:
    batch = images(2500)
    predictions = connect(in_flight=3).predict(batch)
    assert isinstance(predictions, Predictions)
    assert predictions.labels == LABELS
    assert predictions.probabilities.dtype == np.float32
    np.testing.assert_array_equal(predictions.probabilities, expected(batch))
    np.testing.assert_array_equal(predictions.classes, expected(batch).argmax(axis=1))
    assert sorted(len(sent(seen)) for seen in service.pieces) == [452, 1024, 1024]


def sent(seen: Any) -> np.ndarray:
    assert seen.headers["Content-Type"] == NPY
    array: np.ndarray = np.load(io.BytesIO(seen.body), allow_pickle=False)
    return array


def test_a_piece_stays_under_the_size_limit(connect: Any, service: ScriptedService) -> None:
    batch = np.zeros((1500, 28, 28), np.float64)
    batch[:] = np.arange(1500)[:, None, None]
    predictions = connect(in_flight=2).predict(batch)
    np.testing.assert_array_equal(predictions.probabilities, expected(batch))
    assert len(service.pieces) == 2
    assert max(len(seen.body) for seen in service.pieces) < 6_553_500
    assert sum(len(sent(seen)) for seen in service.pieces) == 1500


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(images(5).reshape(5, 784), id="flattened"),
        pytest.param(images(5).reshape(5, 1, 28, 28), id="with a channel"),
        pytest.param(images(10)[::2], id="every other"),
        pytest.param(np.asfortranarray(images(5)), id="Fortran order"),
        pytest.param(images(5).astype(">f8"), id="big-endian"),
        pytest.param(images(1), id="one"),
        pytest.param(list(images(5)), id="list of arrays"),
        pytest.param(tuple(images(5)), id="tuple of arrays"),
        pytest.param([image.reshape(784) for image in images(5)], id="list of flattened arrays"),
    ],
)
def test_arrays_of_every_layout(connect: Any, batch: Any) -> None:
    predictions = connect().predict(batch)
    np.testing.assert_array_equal(predictions.probabilities, expected(np.asarray(batch)))


def test_vectors(connect: Any) -> None:
    batch = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.float32)
    predictions = connect().predict(batch, model="sigmoid_net")
    assert predictions.independent
    assert [prediction.label for prediction in predictions] == ["a", "b", "a"]
    assert predictions[1].class_index is None


def test_metadata_is_requested_once(connect: Any, service: ScriptedService) -> None:
    client = connect()
    for _ in range(3):
        client.predict(images(2))
    assert [seen.path for seen in service.seen].count("/v2/models/fashion_convnet") == 1


def test_every_piece_has_the_version(connect: Any, service: ScriptedService) -> None:
    connect().predict(images(2), version="1.1")
    assert {seen.path for seen in service.predictions} == {"/predictions/fashion_convnet/1.1"}


def test_predictions_are_a_sequence(connect: Any) -> None:
    batch = images(6)
    predictions = connect().predict(batch, top_k=2)
    assert len(predictions) == 6
    assert predictions[0] == next(iter(predictions))
    assert predictions[-1] == list(predictions)[5]
    assert [each.class_index for each in predictions[2:4]] == list(predictions.classes[2:4])
    assert list(predictions[1].probabilities) == ["Sneaker", "T-shirt/top"]
    with pytest.raises(IndexError):
        predictions[6]


def test_an_array_and_single_calls_agree(connect: Any) -> None:
    batch, client = images(4), connect()
    for top_k in (None, 3):
        assert list(client.predict(batch, top_k=top_k)) == [client.predict(image, top_k=top_k) for image in batch]


@pytest.mark.parametrize("empty", [[], (), np.empty((0, 28, 28), np.uint8)], ids=["list", "tuple", "array"])
def test_no_examples_give_no_predictions(connect: Any, service: ScriptedService, empty: Any) -> None:
    predictions = connect().predict(empty)
    assert len(predictions) == 0
    assert list(predictions) == []
    assert not service.predictions


def test_empty_predictions_have_no_classes() -> None:
    assert Predictions((), np.zeros((0, 0), np.float32)).classes.shape == (0,)


@pytest.mark.parametrize(
    ("batch", "options", "text"),
    [
        (np.zeros((2, 27, 28)), {}, r"\[2, 27, 28\]"),
        ([np.zeros((2, 28, 28)), np.zeros((2, 28, 28))], {}, "each array of a list must be one example"),
        (images(2), {"top_k": 11}, "top_k must be from 1 to 10, got 11"),
        (images(2), {"top_k": 0}, "top_k must be from 1 to 10, got 0"),
        (np.full((2, 28, 28), "x"), {}, "integers or floats"),
    ],
    ids=["shape", "batches in a list", "top_k too large", "top_k too small", "type"],
)
def test_an_invalid_batch_is_not_sent(
    connect: Any, service: ScriptedService, batch: Any, options: Any, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        connect().predict(batch, **options)
    assert not service.pieces


@pytest.mark.usefixtures("quick_backoff")
def test_a_retried_piece_keeps_its_place(connect: Any, service: ScriptedService) -> None:
    batch, client = images(4000), connect(in_flight=2)
    client.predict(batch[:1])
    # The single example first, then two of the four pieces.
    service.script += [None, Drop(), problem(503, "Busy", "…")]
    np.testing.assert_array_equal(client.predict(batch).probabilities, expected(batch))
    assert len(service.pieces) == 1 + 4 + 2


def test_the_first_failing_piece_ends_the_call(connect: Any, service: ScriptedService) -> None:
    client = connect(in_flight=1)
    client.predict(images(1))
    service.script += [None, None, REFUSAL]
    with pytest.raises(RefusedError, match="not an image"):
        client.predict(images(20 * _inputs.PIECE_EXAMPLES))
    # Pieces that had started may have been sent too; the rest was dropped.
    assert len(service.pieces) < 10


@pytest.mark.parametrize("body", [b"", b"\x93NUMPY", b"{}"], ids=["empty", "cut", "JSON"])
def test_an_answer_that_is_not_an_array_is_an_answer_error(connect: Any, service: ScriptedService, body: bytes) -> None:
    client = connect()
    client.predict(images(1))
    service.script += [None, Reply(200, body)]
    with pytest.raises(AnswerError, match=r"is not a \.npy array"):
        client.predict(images(2))


def test_an_array_of_another_shape_is_an_answer_error(connect: Any, service: ScriptedService) -> None:
    client = connect()
    client.predict(images(1))
    file = io.BytesIO()
    np.save(file, np.zeros((3, 10), np.float32))
    service.script += [None, Reply(200, file.getvalue())]
    with pytest.raises(AnswerError, match="is not an array of 2x10 probabilities"):
        client.predict(images(2))


def test_labels_in_another_order_are_an_answer_error(connect: Any, service: ScriptedService) -> None:
    client = connect()
    client.predict(images(1))
    service.script += [Reply(200, b'{"class": 0, "label": "Bag", "probabilities": {"Coat": 0.1, "Bag": 0.9}}')]
    with pytest.raises(AnswerError, match="the labels must have 'Bag' at index 0, got"):
        client.predict(images(2))


@pytest.mark.parametrize("limit", [1, 3])
def test_the_number_of_concurrent_requests_is_the_limit(connect: Any, service: ScriptedService, limit: int) -> None:
    # Each piece waits for `limit` pieces. Fewer would break the barrier; more would show in `most_in_flight`.
    service.meeting = threading.Barrier(limit)
    batch = images(6 * _inputs.PIECE_EXAMPLES)
    predictions = connect(in_flight=limit, retries=0).predict(batch)
    np.testing.assert_array_equal(predictions.probabilities, expected(batch))
    assert service.most_in_flight == limit
    assert service.connections <= limit


def test_a_list_may_mix_forms(connect: Any, tmp_path: Path) -> None:
    (tmp_path / "bag.png").write_bytes(png(8))
    mixed = [png(1), tmp_path / "bag.png", np.full((28, 28), 9, np.uint8), np.full(784, 4.0, np.float32)]
    predictions = connect().predict(mixed, top_k=1)
    assert [prediction.label for prediction in predictions] == ["Trouser", "Bag", "Ankle boot", "Coat"]
    assert all(len(prediction.probabilities) == 1 for prediction in predictions)


def test_arrays_of_different_types_are_not_mixed(connect: Any, service: ScriptedService) -> None:
    connect().predict([np.full((28, 28), 200, np.uint8), np.full((28, 28), 0.5, np.float32)])
    assert sorted(sent(seen).dtype.str for seen in service.predictions) == ["<f4", "|u1"]


def test_a_list_raises_its_first_error(connect: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png"):
        connect().predict([png(0), tmp_path / "a.png", png(1), tmp_path / "b.png"])


def test_predict_each_continues_after_an_error(connect: Any, tmp_path: Path) -> None:
    outcomes = list(connect(in_flight=2).predict_each([png(1), b"not an image", tmp_path / "gone", png(2)] * 5))
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Prediction, RefusedError, InputError, Prediction] * 5


def test_predict_each_consumes_examples_only_as_needed(service: ScriptedService) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield png(taken % 250)

    with FashionClient(service.url, in_flight=2) as client:
        outcomes = client.predict_each(endless())
        for place in range(1, 10):
            prediction = next(outcomes)
            assert isinstance(prediction, Prediction)
            assert prediction.label == LABELS[place % 10]
        outcomes.close()
    assert taken <= 9 + 4
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fashion")]


def test_closing_the_results_ends_the_wait_before_a_retry() -> None:
    """A thread that waits before a retry must not delay a caller that has stopped early."""
    waiting, woken = threading.Event(), threading.Event()

    def work(item: int, abandoned: threading.Event) -> int:
        if item == 1:
            waiting.set()
            woken.set() if abandoned.wait(60) else None
        return item

    outcomes = _in_order(work, range(10), 2)
    assert next(outcomes) == 0
    assert waiting.wait(10)
    outcomes.close()
    assert woken.is_set()


def test_progress_is_shown_on_request(service: ScriptedService, capsys: pytest.CaptureFixture[str]) -> None:
    with FashionClient(service.url) as client:
        client.predict(images(1500))
        client.predict([png(1), png(2)])
        assert capsys.readouterr() == ("", "")
        client.predict(images(1500), progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "1500/1500" in shown.err
        client.predict([png(1), png(2)], progress=True)
        assert "2/2" in capsys.readouterr().err


def test_threads_may_share_a_client(service: ScriptedService) -> None:
    batch = images(40)
    with FashionClient(service.url, in_flight=8) as client:
        results: list[Any] = [None] * 8

        def work(place: int) -> None:
            results[place] = [client.predict(image).class_index for image in batch[place * 5 : place * 5 + 5]]

        threads = [threading.Thread(target=work, args=[place]) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [index for part in results for index in part] == list(expected(batch).argmax(axis=1))


def test_cancelling_an_asynchronous_call_cancels_its_requests(service: ScriptedService) -> None:
    service.meeting = threading.Barrier(100)

    async def run() -> None:
        async with AsyncFashionClient(service.url, in_flight=2) as client:
            before = asyncio.all_tasks()
            call = asyncio.create_task(client.predict(images(8 * _inputs.PIECE_EXAMPLES)))
            while len(service.pieces) < 2:
                assert not call.done()
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(run(), 30))
    assert len(service.pieces) == 2


def test_a_long_retry_after_is_raised_at_once(connect: Any, service: ScriptedService) -> None:
    service.script += [problem(503, "Busy", "…", **{"Retry-After": "3600"})]
    with pytest.raises(BusyError) as caught:
        connect().predict(png(1))
    assert caught.value.retry_after == 3600
    assert len(service.seen) == 1
