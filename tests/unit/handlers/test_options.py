"""Options in the query string."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import problems
from handlers.inputs import options
from tests.support.signatures import LABELS


@pytest.mark.parametrize("query", [None, "", "unknown=1", "a&b=&=c", "%ff%00", "top_k2=0", "_=1&_=2"])
def test_without_options_the_defaults_hold(query):
    assert options.parse(query, LABELS) == options.DEFAULT


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("top_k=1", options.Options(top_k=1)),
        ("top_k=10", options.Options(top_k=10)),
        ("target=0", options.Options(target=0)),
        ("target=9", options.Options(target=9)),
        ("target=T-shirt%2Ftop", options.Options(target=0)),
        ("target=Ankle+boot", options.Options(target=9)),
        ("target=Ankle%20boot&prepare=photo&picture=true", options.Options(None, 9, "photo", True)),
        ("prepare=none&picture=0&other=x", options.Options(prepare="none")),
    ],
)
def test_options_are_read(query, expected):
    assert options.parse(query, LABELS) == expected


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "11", "1.0", "+1", " 1", "٣", "1e0", "9" * 5000])
def test_top_k_must_be_from_1_to_the_number_of_labels(value):
    with pytest.raises(problems.Unprocessable, match="top_k must be a whole number from 1 to 10"):
        options.parse(f"top_k={value.replace('+', '%2B')}", LABELS)


@pytest.mark.parametrize(
    "query", ["target=10", "target=-1", "target=shoe", "target=", "prepare=", "prepare=PHOTO", "picture=maybe"]
)
def test_the_message_about_a_wrong_value_names_the_right_ones(query):
    with pytest.raises(problems.Unprocessable, match=query.partition("=")[0] + " must be"):
        options.parse(query, LABELS)


def test_an_option_that_appears_twice_is_refused():
    with pytest.raises(problems.Unprocessable, match="twice"):
        options.parse("top_k=1&top_k=2", LABELS)


def test_a_label_that_looks_like_an_index_is_a_label():
    assert options.parse("target=0", ("1", "0")).target == 1


def test_too_many_fields_are_refused():
    with pytest.raises(problems.Unprocessable):
        options.parse("&".join(f"a{n}=" for n in range(500)), LABELS)


@given(st.text() | st.from_regex(r"(top_k|target|prepare|picture)=.*", fullmatch=True))
def test_any_text_gives_options_or_a_problem(query):
    with contextlib.suppress(problems.Unprocessable):
        assert isinstance(options.parse(query, LABELS), options.Options)
