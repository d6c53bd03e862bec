"""Compressed bodies are decompressed within the limit, and no input gives anything but a body or a problem."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import limits, problems
from handlers.inputs import compression


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "GZIP", "x-gzip", "deflate"]))
def test_a_compressed_body_is_decompressed(body, encoding):
    compressed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body)
    assert compression.decompress(compressed, encoding) == body


def test_an_empty_body_stays_empty():
    assert compression.decompress(b"", "gzip") == b""


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_give_a_body_or_a_problem(noise, encoding):
    for body in (noise, zlib.compress(noise) + noise, gzip.compress(noise)[: len(noise)]):
        try:
            compression.decompress(body, encoding)
        except problems.Problem:
            continue


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_holds_for_the_decompressed_body(over):
    compressed = gzip.compress(bytes(limits.REQUEST_BYTES + over), 1)
    if not over:
        assert len(compression.decompress(compressed, "gzip")) == limits.REQUEST_BYTES
        return
    with pytest.raises(problems.TooLarge):
        compression.decompress(compressed, "gzip")


def test_a_bomb_takes_little_more_memory_than_the_limit():
    # 1 GB, compressed twice as zeros.
    bomb = gzip.compress(bytes(2**26), 9) * 16
    tracemalloc.start()
    with pytest.raises(problems.TooLarge):
        compression.decompress(bomb, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * limits.REQUEST_BYTES


def test_many_members_are_refused():
    body = gzip.compress(b"")
    assert compression.decompress(gzip.compress(b"a") * 1000, "gzip") == b"a" * 1000
    for many, encoding in ((body * 100_000, "gzip"), (b"\x03\x00" * 200_000, "deflate")):
        with pytest.raises(problems.Malformed):
            compression.decompress(many, encoding)


def test_an_unknown_encoding_is_refused():
    with pytest.raises(problems.UnsupportedFormat, match="must be gzip, deflate or identity, got 'br'"):
        compression.decompress(b"x", "br")
