"""Answers in JSON and as arrays, and the choice between them by ``Accept``."""

import base64
import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from handlers import problems
from handlers.outputs import encoding
from handlers.signature import Output
from tests.support.signatures import FASHION, LABELS, SIGMOID

PROBABILITIES = np.full((3, 10), 0.01, np.float32)
PROBABILITIES[0, 9] = PROBABILITIES[1, 0] = PROBABILITIES[2, 4] = 0.91
ENCODER = encoding.Encoder(FASHION.output)


def test_one_answer_is_an_object():
    answer = json.loads(ENCODER.json(PROBABILITIES[:1], single=True))
    assert list(answer) == ["class", "label", "probability", "probabilities"]
    assert (answer["class"], answer["label"], answer["probability"]) == (9, "Ankle boot", 0.91)
    assert list(answer["probabilities"]) == list(LABELS)
    assert answer["probabilities"]["Bag"] == 0.01


def test_several_answers_are_a_list_in_order():
    answers = json.loads(ENCODER.json(PROBABILITIES, single=False))
    assert [answer["label"] for answer in answers] == ["Ankle boot", "T-shirt/top", "Coat"]
    assert len(json.loads(ENCODER.json(PROBABILITIES[:1], single=False))) == 1
    wrapped = json.loads(ENCODER.json(PROBABILITIES, single=False, wrapped=True))
    assert wrapped == {"predictions": answers}


@given(npst.arrays(np.float32, (2, 10), elements=st.floats(0, 1, width=32)))
def test_json_holds_every_float32_exactly(values):
    for answer, row in zip(json.loads(ENCODER.json(values, single=False)), values, strict=True):
        np.testing.assert_array_equal(np.array(list(answer["probabilities"].values()), np.float32), row)
        assert answer["class"] == row.argmax()
        assert np.float32(answer["probability"]) == row.max()


@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_top_k_lists_the_most_probable_first(top_k):
    values = np.linspace(0.02, 0.18, 10, dtype=np.float32)[None]
    answer = json.loads(ENCODER.json(values, single=True, top_k=top_k))
    assert list(answer["probabilities"]) == list(LABELS[::-1][:top_k])
    assert answer["label"] == LABELS[-1]


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=2), elements=FLOATS))
def test_json_holds_every_number_exactly(numbers):
    encoder = encoding.encoder(Output("none", tuple(map(str, range(numbers.shape[1])))))
    answers = json.loads(encoder.json(numbers, single=False))
    np.testing.assert_array_equal(np.array([answer["values"] for answer in answers], np.float32), numbers)


def test_independent_labels_have_no_class():
    encoder = encoding.Encoder(SIGMOID.output)
    answers = json.loads(encoder.json(np.array([[0.5, 0.9], [0.49, 0.2]], np.float32), single=False))
    assert [answer["labels"] for answer in answers] == [["left", "100%"], []]
    assert list(answers[0]) == ["probabilities", "labels"]
    assert answers[1]["probabilities"] == pytest.approx({"left": 0.49, "100%": 0.2})
    shortened = json.loads(encoder.json(np.array([[0.6, 0.9]], np.float32), single=True, top_k=1))
    assert shortened == {"probabilities": {"100%": 0.9}, "labels": ["left", "100%"]}


def test_labels_may_hold_any_text():
    labels = ("%s", 'a "quoted" %d', "ß\n", "%%")
    answer = json.loads(encoding.Encoder(Output("softmax", labels)).json(np.full((1, 4), 0.25, np.float32), True))
    assert list(answer["probabilities"]) == list(labels)


def test_further_members_are_added_with_bytes_in_base64_and_numbers_in_their_shortest_form():
    more = [
        encoding.members(picture=picture, ood=score) for picture, score in ((b"one", np.float32(0.1)), (b"two", 1.0))
    ]
    text = ENCODER.json(PROBABILITIES[:2], single=False, more=more)
    answers = json.loads(text)
    assert [base64.b64decode(answer["picture"]) for answer in answers] == [b"one", b"two"]
    assert b'"ood":0.1}' in text
    assert answers[1]["ood"] == 1


def test_explanations_have_a_target_and_attributions():
    attributions = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    answers = json.loads(ENCODER.explanations(PROBABILITIES[:2], [9, 3], attributions, single=False))
    assert [list(answer) for answer in answers] == [["class", "label", "probability", "target", "attributions"]] * 2
    assert [answer["target"] for answer in answers] == [9, 3]
    assert [answer["class"] for answer in answers] == [9, 0]
    np.testing.assert_array_equal([answer["attributions"] for answer in answers], attributions)
    assert json.loads(ENCODER.explanations(PROBABILITIES[:1], [9], attributions[:1], single=True)) == answers[0]
    wrapped = json.loads(ENCODER.explanations(PROBABILITIES[:2], [9, 3], attributions, single=False, wrapped=True))
    assert wrapped == {"explanations": answers}


def test_explanations_of_independent_labels_are_of_the_target():
    encoder = encoding.Encoder(SIGMOID.output)
    values = np.array([[0.25, 0.75]], np.float32)
    answer = json.loads(encoder.explanations(values, [0], np.zeros((1, 3), np.float32), single=True))
    assert (answer["label"], answer["probability"], answer["target"]) == ("left", 0.25, 0)


def test_arrays_are_npy_or_raw_float32():
    array = np.load(io.BytesIO(encoding.array(PROBABILITIES, "application/x-npy")))
    np.testing.assert_array_equal(array, PROBABILITIES)
    assert array.dtype == np.float32
    raw = encoding.array(PROBABILITIES[1:2], "application/octet-stream")
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), PROBABILITIES[1])


JSON, NPY, RAW = encoding.FORMS


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("application/x-npy", NPY),
        ("Application/X-NPY ; q=0.5", NPY),
        ("application/octet-stream, application/json;q=0.9", RAW),
        ("application/json;q=0.5, application/x-npy;q=0.6", NPY),
        ("application/x-npy, application/json", JSON),
        ("*/*;q=0.1, application/octet-stream", RAW),
        ("application/json;q=0, */*", NPY),
        ("text/html, application/x-npy;q=0.001", NPY),
        (",, ,application/x-npy", NPY),
    ],
)
def test_accept_decides_the_form(accept, expected):
    assert encoding.negotiate(accept) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "text/*", "application/json;q=0", "image/png", "*/*;q=0", "application/json;q=x", "json"]
)
def test_an_accept_header_that_no_form_meets_is_not_acceptable(accept):
    with pytest.raises(problems.NotAcceptable, match="application/x-npy"):
        encoding.negotiate(accept)


@given(st.text())
def test_any_accept_header_gives_a_form_or_a_problem(accept):
    with contextlib.suppress(problems.NotAcceptable):
        assert encoding.negotiate(accept) in encoding.FORMS
