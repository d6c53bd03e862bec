"""The load generator with a scripted server counts each wrong answer as wrong."""

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
def question(tmp_path):
    """A question about two versions of a model with different answers, and the right answer of version 1.0."""
    golden = packing.golden()
    with np.load(io.BytesIO(golden)) as arrays:
        inputs, probabilities = arrays["inputs"], arrays["probabilities"]
    swapped = packing.npz(inputs=inputs, probabilities=probabilities[:, ::-1].copy())
    paths = [packing.pack(tmp_path), packing.pack(tmp_path, version="1.1", changes={"golden.npz": swapped})]
    return request_forms.make([archives.read(path) for path in paths], ["json"], count=1), probabilities[0]


def prediction(probabilities, version="1.0", **changes):
    """An answer in the service's form."""
    body = {
        "class": int(np.argmax(probabilities)),
        "probabilities": dict(zip(packing.LABELS, map(float, probabilities), strict=True)),
        **changes,
    }
    return answer(200, orjson.dumps(body), f"x-model-version: {version}")


def run(plan):
    """Run a plan; return its record."""

    async def load():
        return await Load(plan, asyncio.Event()).run()

    return asyncio.run(load())


def measure(questions, *script, calls=1, **options):
    """Make a number of calls, one after another, and return the summary."""
    with ScriptedUpstream() as upstream:
        upstream.play(script)
        # The duration ends half an interval after the last call is due.
        plan = Plan(HOST, upstream.port, questions, 1, seconds=(calls - 0.5) / 1000, rate=1000, **options)
        return run(plan).summary()


def test_right_answers_are_counted_by_version(question):
    questions, right = question
    summary = measure(questions, prediction(right), prediction(right[::-1], "1.1"), calls=2)
    assert summary["calls"] == {"ok": 2}
    assert summary["versions"] == {"1.0": 1, "1.1": 1}
    assert len(summary["series"]) >= 1
    assert sum(entry["calls"].get("ok", 0) for entry in summary["series"]) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda right: prediction(right, "1.1"),
        lambda right: prediction(right, "2.0"),
        lambda right: prediction(right + np.array([0.01, -0.01])),
        lambda right: prediction(right, **{"class": int(np.argmin(right))}),
        lambda _: answer(200, b"{}", "x-model-version: 1.0"),
        lambda right: answer(200, prediction(right).partition(b"\r\n\r\n")[2]),
    ],
    ids=["another version's", "unknown version", "other probabilities", "other class", "empty", "no version"],
)
def test_wrong_answers_are_counted_as_wrong(question, make):
    questions, right = question
    summary = measure(questions, make(right))
    assert summary["calls"] == {"wrong": 1}
    assert len(summary["examples"]) == 1


def test_a_refused_call_is_retried_after_its_retry_after(question):
    questions, right = question
    begin = time.monotonic()
    summary = measure(questions, answer(503, b"{}", "retry-after: 1"), prediction(right))
    assert time.monotonic() - begin >= 1
    assert summary["calls"] == {"ok": 1}
    assert summary["tries"] == {"status 503": 1, "ok": 1}
    assert summary["refusals_without_retry_after"] == 0


def test_a_call_whose_last_try_is_refused_counts_as_refused(question):
    questions, _ = question
    summary = measure(questions, *[answer(503)] * 2, retries=1)
    assert summary["calls"] == {"refused": 1}
    assert summary["refusals_without_retry_after"] == 2


def test_a_failure_of_the_service_is_not_retried(question):
    questions, _ = question
    assert measure(questions, answer(500))["calls"] == {"status 500": 1}


def test_broken_connections_are_retried(question):
    questions, right = question
    summary = measure(questions, DROP, prediction(right))
    assert summary["calls"] == {"ok": 1}
    assert summary["tries"] == {"broken": 1, "ok": 1}


def test_calls_to_a_closed_port_are_unconnected(question):
    questions, _ = question
    with ScriptedUpstream() as upstream:
        port = upstream.port

    summary = run(Plan(HOST, port, questions, 1, seconds=0.05, retries=0)).summary()
    assert summary["calls"].keys() == {"unconnected"}


def test_calls_start_at_the_given_rate(question):
    questions, right = question
    with ScriptedUpstream() as upstream:
        upstream.play([prediction(right)] * 1000)

        summary = run(Plan(HOST, upstream.port, questions, 4, seconds=1, rate=50)).summary()
    # One second has calls 0 to 50.
    assert summary["calls"] == {"ok": 51}


def test_a_header_is_matched_by_its_whole_name():
    reply = http1.Reply(200, b"http/1.1 200 ok\r\nx-content-length: 1\r\ncontent-length: 2", b"")
    assert reply.header(b"content-length") == b"2"
    assert reply.header(b"length") == b""
