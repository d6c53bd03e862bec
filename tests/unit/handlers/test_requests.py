"""Parsing requests as TorchServe hands them over: headers of any case, parts, forms, gRPC."""

import json
from typing import Any

import pytest

from handlers.inputs import requests
from handlers.inputs.multipart import URL_ENCODED, Part

HTTP = {"host": "localhost", "explain": "False", "url_path": ""}


def parse(data, **headers):
    return requests.parse(data, {**HTTP, **headers})


def test_a_body_has_the_requests_content_type():
    body = bytearray(b"123")
    request = parse({"body": body}, **{"Content-Type": "image/png", "ACCEPT": "*/*"})
    assert request.parts == [Part(body, "image/png")]
    assert request.headers["accept"] == "*/*"
    assert (request.protocol, request.task) == ("http", "predict")


def test_parts_have_content_types_of_their_own():
    data = {"a": bytearray(b"1"), "b": bytearray(b"2"), "c": bytearray(b"3")}
    described = {"a": {"content-type": "image/png"}, "b": {"content-type": ""}}
    request = parse(data, **{"content-type": "multipart/form-data; boundary=x"}, **described)
    assert request.parts == [Part(b"1", "image/png"), Part(b"2", ""), Part(b"3", "")]
    assert "a" not in request.headers


def test_one_part_has_its_own_content_type():
    described = {"file": {"content-type": "image/gif"}}
    request = parse({"file": b"GIF"}, **{"Content-Type": "multipart/form-data; boundary=x"}, **described)
    assert request.parts == [Part(b"GIF", "image/gif")]


def test_a_part_named_like_a_header_changes_no_header():
    described = {"Accept": {"content-type": "image/png"}, "explain": "False"}
    request = parse({"Accept": b"1"}, **{"content-type": "multipart/form-data; boundary=x"}, **described)
    assert "accept" not in request.headers
    assert request.task == "predict"


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"[[1, 2]]": b""}, b"[[1, 2]]"),
        ({'{"b64": "abc': b'="}'}, b'{"b64": "abc=="}'),
        ({"a": b"1", "b": b"", "c": b"2"}, b"a=1&b&c=2"),
    ],
)
def test_a_form_that_torchserve_split_is_joined_again(fields, body):
    assert parse(fields, **{"Content-Type": URL_ENCODED}).parts == [Part(body, URL_ENCODED)]


def test_an_empty_form_has_no_parts():
    assert parse({}, **{"content-type": URL_ENCODED}).parts == []


def test_only_the_frontends_own_header_asks_for_explanations():
    assert parse({"body": b"1"}, explain="True").task == "explain"
    assert parse({"body": b"1"}, Explain="True").task == "predict"


def test_the_describe_header_asks_for_metadata():
    request = requests.parse({}, {"describe": "True"})
    assert (request.task, request.parts) == ("describe", [])
    assert parse({"body": b""}, Describe="True").task == "describe"


def test_grpc_has_no_headers():
    data = {"data": bytearray(b"1"), "more": bytearray(b"2")}
    request = requests.parse(data, {"data": {"content-type": ""}, "more": {"content-type": ""}})
    assert request.protocol == "grpc"
    assert request.parts == [Part(b"1", ""), Part(b"2", "")]
    assert requests.parse({}, {}).protocol == "grpc"
    assert requests.parse({"body": b"1"}, {"body": {"content-type": ""}}).protocol == "grpc"


def test_the_open_inference_protocol_over_grpc_states_json():
    request = requests.parse({"body": b"{}"}, {"body": {"content-type": "application/json"}})
    assert request.protocol == "grpc_oip"
    assert request.parts == [Part(b"{}", "application/json")]
    assert parse({"body": b"{}"}, body={"content-type": "application/json"}).protocol == "http"


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], {"instances": [1]}, 5, None, "text"], ids=str)
def test_what_torchserve_has_decoded_is_encoded_again(value):
    (part,) = parse({"body": value}, **{"Content-Type": "application/json"}).parts
    assert (part.body.decode() if isinstance(value, str) else json.loads(part.body)) == value


def test_a_number_that_orjson_cannot_write_is_encoded_again():
    (part,) = parse({"body": [10**30, float("nan")]}, **{"Content-Type": "application/json"}).parts
    assert part.body == b"[1000000000000000000000000000000, NaN]"


def test_a_request_like_the_last_one_is_parsed_as_it_would_be_alone():
    plain: dict[str, Any] = {
        **HTTP,
        "Content-Type": "application/octet-stream",
        "body": {"content-type": "application/octet-stream"},
    }
    batch: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"body": bytearray(b"1")}, plain),
        ({"body": bytearray(b"2")}, dict(plain)),
        ({"body": bytearray(b"2"), "more": bytearray(b"3")}, dict(plain)),
        ({"body": bytearray(b"4")}, {**plain, "explain": "True"}),
        ({"body": bytearray(b"5")}, {**plain, "explain": "True"}),
        ({"body": bytearray(b"a")}, {**plain, "Content-Type": URL_ENCODED}),
        ({"other": bytearray(b"b")}, {**plain, "Content-Type": URL_ENCODED}),
        ({"body": bytearray(b"6")}, plain),
        ({"body": "text"}, plain),
        ({"body": bytearray()}, plain),
        ({}, {**HTTP, "describe": "True"}),
        ({"body": bytearray(b"{}")}, {"body": {"content-type": "application/json"}}),
        ({"body": bytearray(b"[]")}, {"body": {"content-type": "application/json"}}),
    ]
    parser = requests.Parser()
    for data, properties in batch * 2:
        assert parser.parse(data, properties) == requests.parse(data, properties)


def test_requests_with_equal_headers_share_one_headers_object():
    parser = requests.Parser()
    headers = {**HTTP, "Accept": "*/*"}
    first, second = (parser.parse({"body": bytearray(text)}, dict(headers)) for text in (b"1", b"2"))
    other = parser.parse({"body": bytearray(b"3")}, {**headers, "Accept": "image/png"})
    assert first.headers is second.headers
    assert other.headers["accept"] == "image/png"
    assert [each.parts[0].body for each in (first, second, other)] == [b"1", b"2", b"3"]
