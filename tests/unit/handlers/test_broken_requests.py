"""A few thousand broken requests of every format; ``python -m tests.fuzz.decoders --count N`` tries more."""

import collections

import pytest

from tests.fuzz import decoders, mutations

CORPUS = mutations.small()
COUNT = 4000
EXPECTED = {"npy objects": "Unprocessable", "HEIC large content": "TooLarge", "AVIF large content": "Malformed"}


@pytest.mark.parametrize("request_", CORPUS, ids=lambda request: request.name)
def test_every_request_of_the_corpus_has_the_expected_outcome(request_):
    name, _ = decoders.outcome(request_)
    assert name == EXPECTED.get(request_.name, "decoded")


def test_broken_requests_raise_only_problems():
    names = collections.Counter(decoders.outcome(request)[0] for request in mutations.mutated(0, COUNT, CORPUS))
    # Useful mutations cause every kind of problem, and leave some requests right.
    assert {"decoded", "Malformed", "Unprocessable", "UnsupportedFormat", "TooLarge"} <= set(names)


def test_the_same_seed_gives_the_same_requests():
    assert list(mutations.mutated(7, 50, CORPUS)) == list(mutations.mutated(7, 50, CORPUS))
