"""The body that reports an error to a caller."""

import json

import pytest

from handlers import problems

TYPES = [problems.Malformed, problems.NotAcceptable, problems.TooLarge]
TYPES += [problems.UnsupportedFormat, problems.Unprocessable, problems.Internal, problems.Unavailable]


@pytest.mark.parametrize("type_", TYPES)
def test_the_body_is_that_of_rfc_9457(type_):
    body = json.loads(type_("28x27 does not fit").body("8d0e"))
    assert body == {
        "type": type_.type,
        "title": type_.title,
        "status": type_.status,
        "detail": "28x27 does not fit",
        "instance": "urn:uuid:8d0e",
        "error": "28x27 does not fit",
    }


def test_the_types_titles_and_statuses_of_problems_are_distinct():
    # Other modules define more subclasses.
    own = {type_ for type_ in problems.Problem.__subclasses__() if type_.__module__ == problems.__name__}
    assert own == set(TYPES)
    for name in ("type", "title", "status", "phrase"):
        assert len({getattr(type_, name) for type_ in TYPES}) == len(TYPES)


@pytest.mark.parametrize("detail", ["Žabot 'ß' \"quoted\" \n", "lone surrogate \ud800", ""], ids=ascii)
def test_a_detail_may_contain_any_text(detail):
    body = json.loads(problems.Malformed(detail).body("1"))
    assert body["detail"] == detail.encode("utf-8", "backslashreplace").decode()
