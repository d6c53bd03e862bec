"""How requests come out of TorchServe: headers of any case, parts, forms, gRPC."""

import json

import pytest

from handlers.inputs import requests
from handlers.inputs.decoding import FORM, Part

HTTP = {"host": "localhost", "explain": "False", "url_path": ""}


def sort(data, **headers):
    return requests.sort(data, {**HTTP, **headers})


def test_a_body_has_the_requests_content_type():
    body = bytearray(b"123")
    found = sort({"body": body}, **{"Content-Type": "image/png", "ACCEPT": "*/*"})
    assert found.parts == [Part(body, "image/png")]
    assert found.headers["accept"] == "*/*"
    assert (found.way, found.task) == ("http", "predict")


def test_parts_have_content_types_of_their_own():
    data = {"a": bytearray(b"1"), "b": bytearray(b"2"), "c": bytearray(b"3")}
    described = {"a": {"content-type": "image/png"}, "b": {"content-type": ""}}
    found = sort(data, **{"content-type": "multipart/form-data; boundary=x"}, **described)
    assert found.parts == [Part(b"1", "image/png"), Part(b"2", ""), Part(b"3", "")]
    assert "a" not in found.headers


def test_one_part_has_its_own_content_type():
    described = {"file": {"content-type": "image/gif"}}
    found = sort({"file": b"GIF"}, **{"Content-Type": "multipart/form-data; boundary=x"}, **described)
    assert found.parts == [Part(b"GIF", "image/gif")]


def test_a_part_named_like_a_header_changes_no_header():
    described = {"Accept": {"content-type": "image/png"}, "explain": "False"}
    found = sort({"Accept": b"1"}, **{"content-type": "multipart/form-data; boundary=x"}, **described)
    assert "accept" not in found.headers
    assert found.task == "predict"


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"[[1, 2]]": b""}, b"[[1, 2]]"),
        ({'{"b64": "abc': b'="}'}, b'{"b64": "abc=="}'),
        ({"a": b"1", "b": b"", "c": b"2"}, b"a=1&b&c=2"),
    ],
)
def test_a_form_is_put_together_again(fields, body):
    assert sort(fields, **{"Content-Type": FORM}).parts == [Part(body, FORM)]


def test_an_empty_form_has_no_parts():
    assert sort({}, **{"content-type": FORM}).parts == []


def test_explanations_come_by_the_frontends_own_header_only():
    assert sort({"body": b"1"}, explain="True").task == "explain"
    assert sort({"body": b"1"}, Explain="True").task == "predict"


def test_descriptions():
    found = requests.sort({}, {"describe": "True"})
    assert (found.task, found.parts) == ("describe", [])
    assert sort({"body": b""}, Describe="True").task == "describe"


def test_grpc_has_no_headers():
    data = {"data": bytearray(b"1"), "more": bytearray(b"2")}
    found = requests.sort(data, {"data": {"content-type": ""}, "more": {"content-type": ""}})
    assert found.way == "grpc"
    assert found.parts == [Part(b"1", ""), Part(b"2", "")]
    assert requests.sort({}, {}).way == "grpc"
    assert requests.sort({"body": b"1"}, {"body": {"content-type": ""}}).way == "grpc"


def test_the_open_inference_protocol_over_grpc_states_json():
    found = requests.sort({"body": b"{}"}, {"body": {"content-type": "application/json"}})
    assert found.way == "grpc_oip"
    assert found.parts == [Part(b"{}", "application/json")]
    assert sort({"body": b"{}"}, body={"content-type": "application/json"}).way == "http"


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], {"instances": [1]}, 5, None, "text"], ids=str)
def test_what_torchserve_has_decoded_is_encoded_again(value):
    (part,) = sort({"body": value}, **{"Content-Type": "application/json"}).parts
    assert (part.body.decode() if isinstance(value, str) else json.loads(part.body)) == value


def test_a_number_that_orjson_cannot_write_is_encoded_again():
    (part,) = sort({"body": [10**30, float("nan")]}, **{"Content-Type": "application/json"}).parts
    assert part.body == b"[1000000000000000000000000000000, NaN]"


def test_a_request_like_the_one_before_is_sorted_as_it_would_be_alone():
    plain = {**HTTP, "Content-Type": "application/octet-stream", "body": {"content-type": "application/octet-stream"}}
    batch = [
        ({"body": bytearray(b"1")}, plain),
        ({"body": bytearray(b"2")}, dict(plain)),
        ({"body": bytearray(b"2"), "more": bytearray(b"3")}, dict(plain)),
        ({"body": bytearray(b"4")}, {**plain, "explain": "True"}),
        ({"body": bytearray(b"5")}, {**plain, "explain": "True"}),
        ({"body": bytearray(b"a")}, {**plain, "Content-Type": FORM}),
        ({"other": bytearray(b"b")}, {**plain, "Content-Type": FORM}),
        ({"body": bytearray(b"6")}, plain),
        ({"body": "text"}, plain),
        ({"body": bytearray()}, plain),
        ({}, {**HTTP, "describe": "True"}),
        ({"body": bytearray(b"{}")}, {"body": {"content-type": "application/json"}}),
        ({"body": bytearray(b"[]")}, {"body": {"content-type": "application/json"}}),
    ]
    sorter = requests.Sorter()
    for data, found in batch * 2:
        assert sorter.sort(data, found) == requests.sort(data, found)


def test_requests_alike_share_the_object_of_their_headers():
    sorter = requests.Sorter()
    headers = {**HTTP, "Accept": "*/*"}
    first, second = (sorter.sort({"body": bytearray(text)}, dict(headers)) for text in (b"1", b"2"))
    other = sorter.sort({"body": bytearray(b"3")}, {**headers, "Accept": "image/png"})
    assert first.headers is second.headers
    assert other.headers["accept"] == "image/png"
    assert [each.parts[0].body for each in (first, second, other)] == [b"1", b"2", b"3"]
