"""Forms are split as RFC 2046 defines, and broken ones are refused."""

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from handlers import limits, problems
from handlers.inputs import multipart
from handlers.inputs.multipart import Part
from handlers.inputs.requests import parse

TYPE = "multipart/form-data; boundary=xyz"


def split(body, content_type):
    return [(part.body, part.content_type) for part in multipart.split(body, content_type)]


def test_parts_keep_their_order_bytes_and_types():
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="1.png"\r\nContent-Type: image/png\r\n\r\n'
        b"\r\n\x00--xyz\r\n\r\n--xyz\r\ncontent-disposition: form-data; name=a\r\n\r\ntext\r\n--xyz--\r\n"
    )
    assert split(body, TYPE) == [(b"\r\n\x00--xyz\r\n", "image/png"), (b"text", "text/plain")]


@pytest.mark.parametrize(
    "body",
    [
        b"--xyz\r\nA: b\r\n\r\n1\r\n--xyz--",
        b"preamble\r\n--xyz\r\nA: b\r\n\r\n1\r\n--xyz--\r\nepilogue",
        b"\r\n--xyz  \t\r\nA: b\r\n\r\n1\r\n--xyz--",
        b"--xyz\r\n\r\n1\r\n--xyz--",
    ],
    ids=["shortest", "text around it", "space after a boundary", "no headers"],
)
def test_every_form_of_rfc_2046_is_accepted(body):
    assert [content for content, _ in split(body, TYPE)] == [b"1"]


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; boundary="xyz"', "Multipart/Form-Data;charset=utf-8;BOUNDARY=xyz", TYPE + "; a=b"],
)
def test_a_boundary_may_be_quoted_or_in_any_case(content_type):
    assert split(b"--xyz\r\n\r\n1\r\n--xyz--", content_type) == [(b"1", "")]


@pytest.mark.parametrize("ending", [b"\r\n\r\n\r\n", b"\r\n\r\n"], ids=["empty", "left out"])
def test_a_part_may_be_empty(ending):
    assert split(b"--xyz\r\nContent-Type: image/png" + ending + b"--xyz--", TYPE) == [(b"", "image/png")]


def test_a_form_may_have_no_parts():
    assert split(b"--xyz--\r\n", TYPE) == []


@pytest.mark.parametrize(
    ("content_type", "body", "problem", "detail"),
    [
        ("multipart/form-data", b"--xyz--", problems.Malformed, "needs a boundary"),
        ("multipart/form-data; boundary=", b"--xyz--", problems.Malformed, "needs a boundary"),
        ("multipart/form-data; boundary=" + "x" * 71, b"", problems.Malformed, "needs a boundary"),
        (TYPE, b"", problems.Malformed, "does not contain the boundary"),
        (TYPE, b"--abc\r\n\r\n1\r\n--abc--", problems.Malformed, "does not contain the boundary"),
        (TYPE, b"--xyz\r\nA: b\r\n\r\n1", problems.Malformed, "truncated: no boundary"),
        (TYPE, b"--xyz\r\nA: b\r\n", problems.Malformed, "within its headers"),
        (TYPE, b"--xyz\nA: b\n\n1\n--xyz--", problems.Malformed, "line break"),
        (TYPE, b"--xyzw\r\nA: b\r\n\r\n1\r\n--xyz--", problems.Malformed, "line break"),
        (TYPE, b"--xyz\r\nA: " + b"b" * 5000 + b"\r\n\r\n1\r\n--xyz--", problems.TooLarge, "headers of a part"),
        (TYPE, b"--xyz\r\n\r\n1\r\n" * (limits.EXAMPLES + 1) + b"--xyz--", problems.TooLarge, "parts"),
        (
            TYPE,
            b"--xyz\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--xyz--",
            problems.UnsupportedFormat,
            "base64",
        ),
    ],
)
def test_broken_forms_are_refused(content_type, body, problem, detail):
    with pytest.raises(problem, match=detail):
        split(body, content_type)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_a_form_of_urllib3_is_read(contents):
    fields = [("image", ("a.png", content, "image/png")) for content in contents]
    body, content_type = encode_multipart_formdata(fields)
    assert split(body, content_type) == [(content, "image/png") for content in contents]


def test_a_form_of_requests_is_read():
    files = {"a": b"1", "b": ("b.png", b"2", "image/png")}
    sent = requests.Request("POST", "http://localhost", files=files, data={"c": "3"}).prepare()
    assert split(sent.body, sent.headers["Content-Type"]) == [(b"3", "text/plain"), (b"1", ""), (b"2", "image/png")]


def test_text_fields_and_empty_file_slots_are_optional():
    files = {"image": ("a.png", b"1", "image/png"), "slot": ("", b"", "application/octet-stream"), "raw": (None, b"2")}
    sent = requests.Request("POST", "http://localhost", files=files, data={"user id": "42", "x": ""}).prepare()
    assert isinstance(sent.body, bytes)
    parts = multipart.split(sent.body, sent.headers["Content-Type"])
    assert [(part.name, part.optional) for part in parts] == [
        *(("user id", True), ("x", True), ("image", False), ("slot", True), ("raw", True)),
    ]


def test_a_form_that_the_gateway_relabeled_keeps_its_own_content_type():
    headers = {"host": "x", "Content-Type": "application/octet-stream", "X-Content-Type": TYPE, "explain": "False"}
    assert parse({"body": b"--xyz--"}, headers).parts == [Part(b"--xyz--", TYPE)]


@given(st.binary(max_size=300))
def test_any_bytes_give_parts_or_a_problem(noise):
    for body in (
        noise,
        b"--xyz\r\n" + noise,
        b"--xyz\r\n" + noise + b"\r\n--xyz--",
        noise.replace(b"\n", b"\r\n--xyz"),
    ):
        try:
            split(bytearray(body), TYPE)
        except problems.Problem:
            continue
