"""The load generator against a server that a test scripts: what is wrong must be counted as wrong."""

from __future__ import annotations

import asyncio
import io
import time

import numpy as np
import orjson
import pytest

from bench import http1, request_forms
from bench.load import Load, Plan
from serving.settings import HOST
from serving.store import archives
from tests.support import packing
from tests.support.upstreams import DROP, ScriptedUpstream, answer


@pytest.fixture
def asked(tmp_path):
    """Questions about two versions of a model whose answers differ."""
    golden = packing.golden()
    with np.load(io.BytesIO(golden)) as arrays:
        inputs, probabilities = arrays["inputs"], arrays["probabilities"]
    swapped = packing.npz(inputs=inputs, probabilities=probabilities[:, ::-1].copy())
    paths = [packing.pack(tmp_path), packing.pack(tmp_path, version="1.1", changes={"golden.npz": swapped})]
    return request_forms.make([archives.read(path) for path in paths], ["json"], count=1), probabilities[0]


def said(probabilities, version="1.0", **changes):
    """An answer as the service gives it."""
    body = {
        "class": int(np.argmax(probabilities)),
        "probabilities": dict(zip(packing.LABELS, map(float, probabilities), strict=True)),
        **changes,
    }
    return answer(200, orjson.dumps(body), f"x-model-version: {version}")


def run(plan):
    """Carry out a plan; the record."""

    async def load():
        return await Load(plan, asyncio.Event()).run()

    return asyncio.run(load())


def ask(asked, *script, calls=1, **options):
    """Make so many calls, one after the other, and give what was recorded."""
    with ScriptedUpstream() as upstream:
        upstream.play(script)
        # At a thousand a second, of which so many begin before the end.
        plan = Plan(HOST, upstream.port, asked, 1, seconds=(calls - 0.5) / 1000, rate=1000, **options)
        return run(plan).summary()


def test_right_answers_of_either_version_are_counted_by_version(asked):
    asked, right = asked
    found = ask(asked, said(right), said(right[::-1], "1.1"), calls=2)
    assert found["calls"] == {"ok": 2}
    assert found["versions"] == {"1.0": 1, "1.1": 1}
    assert len(found["series"]) >= 1
    assert sum(entry["calls"].get("ok", 0) for entry in found["series"]) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda right: said(right, "1.1"),
        lambda right: said(right, "2.0"),
        lambda right: said(right + np.array([0.01, -0.01])),
        lambda right: said(right, **{"class": int(np.argmin(right))}),
        lambda _: answer(200, b"{}", "x-model-version: 1.0"),
        lambda right: answer(200, said(right).partition(b"\r\n\r\n")[2]),
    ],
    ids=["another version's", "unknown version", "other probabilities", "other class", "empty", "no version"],
)
def test_wrong_answers(asked, make):
    asked, right = asked
    found = ask(asked, make(right))
    assert found["calls"] == {"wrong": 1}
    assert len(found["examples"]) == 1


def test_refusals_are_repeated_after_the_time_that_they_name(asked):
    asked, right = asked
    begun = time.monotonic()
    found = ask(asked, answer(503, b"{}", "retry-after: 1"), said(right))
    assert time.monotonic() - begun >= 1
    assert found["calls"] == {"ok": 1}
    assert found["tries"] == {"status 503": 1, "ok": 1}
    assert found["refusals_without_retry_after"] == 0


def test_a_refusal_to_the_last_try_is_the_calls_outcome(asked):
    asked, _ = asked
    found = ask(asked, *[answer(503)] * 2, retries=1)
    assert found["calls"] == {"refused": 1}
    assert found["refusals_without_retry_after"] == 2


def test_a_failure_of_the_service_is_not_repeated(asked):
    asked, _ = asked
    assert ask(asked, answer(500))["calls"] == {"status 500": 1}


def test_broken_connections_are_repeated(asked):
    asked, right = asked
    found = ask(asked, DROP, said(right))
    assert found["calls"] == {"ok": 1}
    assert found["tries"] == {"broken": 1, "ok": 1}


def test_nobody_there(asked):
    asked, _ = asked
    with ScriptedUpstream() as upstream:
        port = upstream.port

    found = run(Plan(HOST, port, asked, 1, seconds=0.05, retries=0)).summary()
    assert found["calls"].keys() == {"unconnected"}


def test_calls_begin_at_their_rate(asked):
    asked, right = asked
    with ScriptedUpstream() as upstream:
        upstream.play([said(right)] * 1000)

        found = run(Plan(HOST, upstream.port, asked, 4, seconds=1, rate=50)).summary()
    # Calls 0 to 50 of a second.
    assert found["calls"] == {"ok": 51}


def test_header_is_found_by_its_whole_name():
    reply = http1.Reply(200, b"http/1.1 200 ok\r\nx-content-length: 1\r\ncontent-length: 2", b"")
    assert reply.header(b"content-length") == b"2"
    assert reply.header(b"length") == b""
