"""Requests of every format are decoded, and wrong ones are refused with the right problem."""

import base64
import json
import urllib.parse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from handlers import limits, problems
from handlers.inputs import decoding, multipart, npy, open_inference
from handlers.inputs.multipart import Part
from tests.support import image_files, npy_files
from tests.support.signatures import FASHION, SIGMOID, VECTOR, WIDE

PIXELS = np.stack([image_files.texture(seed=seed) for seed in range(3)])
ONE, MANY = PIXELS[0], PIXELS
PNG = image_files.save(ONE)
B64 = base64.b64encode(PNG).decode()
OCTETS, JSON, NPY, FORM = "application/octet-stream", "application/json", "application/x-npy", multipart.URL_ENCODED


def decode(body, content_type="", signature=FASHION, **more):
    return decoding.decode([Part(bytearray(body), content_type)], signature, **more)


def as_json(value) -> bytes:
    return json.dumps(value).encode()


def holds(decoded, values, single, envelope="plain"):
    np.testing.assert_array_equal(decoded.values, values)
    assert decoded.values.dtype == np.uint8
    assert (decoded.single, decoded.envelope) == (single, envelope)


# --- images as numbers ---


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ONE.tobytes(), OCTETS),
        (ONE.tobytes(), "Application/Octet-Stream; charset=binary"),
        (ONE.tobytes(), ""),
        (npy_files.save(ONE), NPY),
        (npy_files.save(ONE), OCTETS),
        (npy_files.save(ONE), ""),
        (npy_files.save(np.asfortranarray(ONE)), NPY),
        (npy_files.save(ONE.astype(">i8")), NPY),
        (npy_files.save(ONE.reshape(784)), NPY),
        (as_json(ONE.tolist()), JSON),
        (as_json(ONE.tolist()), "application/json; charset=utf-8"),
        (as_json(ONE.tolist()), "application/vnd.example+json"),
        (as_json(ONE.tolist()), "text/plain"),
        (as_json(ONE.tolist()), FORM),
        (b"\xef\xbb\xbf \n" + as_json(ONE.tolist()) + b"\n", ""),
        (b"\xef\xbb\xbf" + as_json(ONE.tolist()), JSON),
        (as_json(ONE.reshape(784).tolist()), JSON),
        (as_json({"image": ONE.tolist()}), JSON),
        (as_json({"data": ONE.tolist(), "target": 0}), JSON),
    ],
)
def test_one_image_as_numbers(body, content_type):
    holds(decode(body, content_type), ONE[None], single=True)


@pytest.mark.parametrize("values", [MANY, MANY[:1]], ids=["three", "a list of one"])
@pytest.mark.parametrize("joined", [False, True], ids=["rows", "joined rows"])
@pytest.mark.parametrize("form", ["json", "npy", "instances", "objects"])
def test_many_images_as_numbers(values, joined, form):
    sent = values.reshape(len(values), 784) if joined else values
    if form == "npy":
        holds(decode(npy_files.save(sent), NPY), values, single=False)
    elif form == "json":
        holds(decode(as_json(sent.tolist()), JSON), values, single=False)
    elif form == "instances":
        holds(decode(as_json({"instances": sent.tolist()}), JSON), values, False, "predictions")
    else:
        members = [{"image": member} for member in sent.tolist()]
        holds(decode(as_json(members), JSON), values, single=False)
        holds(decode(as_json({"instances": members}), JSON), values, False, "predictions")


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("values", [MANY, MANY[:1]], ids=["three", "a list of one"])
def test_a_channel_axis_of_length_one_is_dropped(axis, values):
    sent = np.expand_dims(values, axis)
    holds(decode(npy_files.save(sent), NPY), values, single=False)
    holds(decode(as_json(sent.tolist()), JSON), values, single=False)
    holds(decode(as_json({"instances": sent.tolist()}), JSON), values, False, "predictions")
    members = [{"image": member} for member in np.expand_dims(values, 3).tolist()]
    holds(decode(as_json({"instances": members}), JSON), values, False, "predictions")


def test_one_image_with_a_channel_axis_is_a_single_example():
    holds(decode(as_json(ONE[..., None].tolist()), JSON), ONE[None], single=True)
    holds(decode(npy_files.save(ONE[None, ..., None]), NPY), ONE[None], single=False)


@pytest.mark.parametrize(
    "shape", [(3, 28, 28, 3), (3, 3, 28, 28), (28, 28, 3), (1, 1, 28, 28, 1), (28, 1, 28)], ids=str
)
def test_no_other_axis_is_dropped(shape):
    with pytest.raises(problems.Unprocessable, match="x".join(map(str, shape))):
        decode(npy_files.save(np.zeros(shape, np.uint8)), NPY)


def test_a_vector_model_takes_no_channel_axis():
    with pytest.raises(problems.Unprocessable):
        decode(npy_files.save(np.zeros((2, 4, 1), np.float32)), NPY, VECTOR)


def test_raw_pixels_of_one_image_are_a_single_example():
    holds(decode(MANY.tobytes(), OCTETS), MANY, single=False)
    holds(decode(ONE.tobytes(), OCTETS), MANY[:1], single=True)


def test_raw_pixels_are_not_copied():
    body = bytearray(MANY.tobytes())
    values = decoding.decode([Part(body, OCTETS)], FASHION).values
    body[0] = 77
    assert values[0, 0, 0] == 77


@pytest.mark.parametrize(
    "first", [b"[", b"{", b'"', b"BM", b"\x89PNG", b"RIFF", b"\xff\xd8", b"data:image/"], ids=ascii
)
def test_raw_pixels_may_start_like_another_format(first):
    body = first + ONE.tobytes()[len(first) : -1] + b"\x01"
    decoded = decode(body, OCTETS)
    assert decoded.values.tobytes() == body


@given(npst.arrays(np.uint8, (2, 6, 10)))
def test_all_formats_of_the_same_pixels_agree(values):
    for body, content_type in [
        (values.tobytes(), OCTETS),
        (npy_files.save(values), NPY),
        (npy_files.save(values.astype(np.int16)), NPY),
        (as_json(values.tolist()), JSON),
        (as_json({"instances": values.tolist()}), JSON),
    ]:
        np.testing.assert_array_equal(decode(body, content_type, WIDE).values, values)


# --- long JSON, which is parsed in pieces ---

LONG = np.random.default_rng(0).integers(0, 256, (1500, 28, 28), np.uint8)


@pytest.mark.parametrize("shape", [(1500, 28, 28), (1500, 784)], ids=str)
@pytest.mark.parametrize("indent", [None, 1], ids=["on one line", "indented"])
@pytest.mark.parametrize("instances", [False, True], ids=["bare", "instances"])
def test_long_json_of_integers(shape, indent, instances):
    sent = LONG.reshape(shape).tolist()
    body = json.dumps({"instances": sent} if instances else sent, indent=indent).encode()
    assert len(body) > 2 * limits.JSON_PIECE_BYTES
    holds(decode(body, JSON), LONG, False, "predictions" if instances else "plain")


@pytest.mark.parametrize("axis", [1, 3])
def test_long_json_with_a_channel_axis(axis):
    body = json.dumps(np.expand_dims(LONG, axis).tolist(), separators=(",", ":")).encode()
    holds(decode(body, JSON), LONG, single=False)


@pytest.mark.parametrize("count", [160, 900, 1500])
@pytest.mark.parametrize(
    "members",
    [
        {"signature_name": "serving_default"},
        {"id": "a[1]", "parameters": {"a": [1, "}"], "instances": [2]}, "flag": True, "none": None},
    ],
    ids=["signature_name", "many"],
)
def test_members_beside_instances_change_nothing(members, count):
    values = LONG[:count].tolist()
    for document in ({**members, "instances": values}, {"instances": values, **members}, {"inputs": values}):
        holds(decode(as_json(document), JSON), LONG[:count], False, "predictions")


def test_the_whole_test_set_is_one_request():
    values = np.random.default_rng(1).integers(0, 256, (10_000, 28, 28), np.uint8)
    for body, content_type in (
        (values.tobytes(), OCTETS),
        (npy_files.save(values / 255), NPY),
        (as_json(values.tolist()), JSON),
    ):
        assert len(decode(body, content_type).values) == 10_000
    with pytest.raises(problems.TooLarge, match="10001, limit 10000"):
        decode(bytes(784 * 10_001), OCTETS)


def test_long_json_of_fractions():
    fractions = (LONG / 255).round(5)
    # A piece of only integers holds fractions too if another piece has a point.
    fractions[:900] = fractions[:900].round()
    sent = [
        [[int(value) if value in (0, 1) else value for value in row] for row in image] for image in fractions.tolist()
    ]
    decoded = decode(as_json(sent), JSON)
    np.testing.assert_allclose(decoded.values, fractions * 255, atol=1e-4)
    assert not decoded.single


def test_long_json_of_vectors():
    vectors = np.random.default_rng(0).normal(size=(8000, 4))
    decoded = decode(json.dumps(vectors.tolist(), indent=9).encode(), JSON, VECTOR)
    np.testing.assert_array_equal(decoded.values, vectors.astype(np.float32))


def test_the_text_of_one_image_may_be_long():
    body = as_json(ONE.tolist()).replace(b", ", b"," + b" " * 2000)
    assert len(body) > limits.JSON_PIECE_BYTES
    holds(decode(body, JSON), ONE[None], single=True)
    with pytest.raises(problems.Unprocessable, match="got one example"):
        decode(b'{"instances":' + body + b"}", JSON)


GOOD = b",".join([as_json(ONE.tolist())] * 1500)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[" + GOOD, problems.Malformed),
        (b"[" + GOOD + b"]]", problems.Malformed),
        (b"[" + GOOD + b",]", problems.Malformed),
        (b"[" + GOOD + b"] 5", problems.Malformed),
        (b"[" + GOOD[: len(GOOD) // 2] + b"@" + GOOD[len(GOOD) // 2 :] + b"]", problems.Malformed),
        (b"[" + GOOD + b",[1]]", problems.Unprocessable),
        (b"[" + GOOD + b",5]", problems.Unprocessable),
        (b"[" + GOOD + b",[[NaN]]]", problems.Unprocessable),
        (b"[" + GOOD + b",[[256]]]", problems.Unprocessable),
        (b"[" + GOOD + b",[[1.5]]]", problems.Unprocessable),
        (b"[" + b"[" * 20 + GOOD + b"]" * 20 + b"]", problems.TooLarge),
        (b"[" + GOOD + b',["x"]]', problems.TooLarge),
        (b'{"instances":[' + GOOD + b"],}", problems.Malformed),
        (b'{"a":[,"instances":[' + GOOD + b"]}", problems.Malformed),
        (b'{"instances":[' + GOOD + b'],"a":}', problems.Malformed),
        (b'{"instances":[' + GOOD + b',["x"]],"a":1}', problems.TooLarge),
        (b'{"a":{"instances":[' + GOOD + b"]}}", problems.TooLarge),
        (b'{"a":{"instances":[' + GOOD + b']},"instances":null}', problems.TooLarge),
        (b'{"instances":[' + GOOD + b"]" + b" " * 500_000 + b'x"}', problems.TooLarge),
        (b'{"instances":[' + GOOD + b"]}}", problems.Malformed),
        (b'{"instances":5}' + b" " * 2 * limits.JSON_PIECE_BYTES, problems.Unprocessable),
        (b"5" + b" " * 2 * limits.JSON_PIECE_BYTES, problems.Unprocessable),
        (b"[" + b" " * 2 * limits.JSON_PIECE_BYTES + b"]", problems.Unprocessable),
        (b"[" * 2 * limits.JSON_PIECE_BYTES, problems.TooLarge),
    ],
    ids=range(24),
)
def test_wrong_long_json_is_refused(body, problem):
    with pytest.raises(problem):
        decode(body, JSON)


# --- fractions ---


@given(npst.arrays(np.float64, (2, 6, 10), elements=st.floats(0, 1)))
def test_fractions_become_pixels(values):
    sent = values.tolist()
    # One number with a point makes all of them fractions.
    sent[0][0][0] = 0.5
    values[0, 0, 0] = 0.5
    for body, content_type in [
        (as_json(sent), JSON),
        (npy_files.save(values), NPY),
        (npy_files.save(values.astype(">f4")), NPY),
    ]:
        pixels = decode(body, content_type, WIDE).values
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, values * 255, rtol=1e-6, atol=1e-4)


def test_integers_are_pixels_and_one_point_makes_all_numbers_fractions():
    zeros_and_ones = (ONE > 0).astype(int).tolist()
    assert decode(as_json(zeros_and_ones), JSON).values.max() == 1
    zeros_and_ones[0][0] = 0.0
    assert decode(as_json(zeros_and_ones), JSON).values.max() == 255


# --- image files ---


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (PNG, "image/png"),
        (PNG, "image/jpeg"),
        (PNG, "image/*"),
        (PNG, OCTETS),
        (PNG, ""),
        (PNG, "text/plain"),
        (B64.encode(), "text/plain"),
        (B64.encode(), ""),
        (B64.rstrip("=").encode(), FORM),
        (f"data:image/png;base64,{B64}".encode(), "text/plain"),
        (as_json(B64), JSON),
        (as_json(f"data:image/png;base64,{B64}"), JSON),
        (as_json({"b64": B64}), JSON),
        (as_json({"image": B64}), JSON),
        (as_json({"image": {"b64": B64}}), JSON),
        (as_json({"image_bytes": {"b64": B64}}), JSON),
        (as_json({"data": B64}), JSON),
        (as_json({"b64": B64.replace("+", "-").replace("/", "_").rstrip("=")}), JSON),
        (as_json({"b64": B64.replace("+", " ")}), FORM),
        (as_json({"b64": "\n".join(B64[place : place + 76] for place in range(0, len(B64), 76))}), JSON),
    ],
)
def test_one_image_file(body, content_type):
    holds(decode(body, content_type), ONE[None], single=True)


def test_many_image_files_in_json():
    encoded = [base64.b64encode(image_files.save(picture)).decode() for picture in MANY]
    holds(decode(as_json(encoded), JSON), MANY, single=False)
    for members in (encoded, [{"b64": one} for one in encoded], [{"image_bytes": {"b64": one}} for one in encoded]):
        holds(decode(as_json({"instances": members}), JSON), MANY, False, "predictions")
    mixed = [encoded[0], {"image": MANY[1].tolist()}, MANY[2].tolist()]
    holds(decode(as_json({"instances": mixed}), JSON), MANY, False, "predictions")


COLUMNS = {
    "a batch": (MANY.tolist(), MANY),
    "one image": (ONE.tolist(), MANY[:1]),
    "a named column": ({"image": MANY.tolist()}, MANY),
    "a named image": ({"images": {"b64": B64}}, MANY[:1]),
    "a named list of images": ({"image_bytes": [{"b64": B64}, {"b64": B64}]}, MANY[[0, 0]]),
    "base64": (B64, MANY[:1]),
    "a list of base64": ([B64, B64], MANY[[0, 0]]),
}


@pytest.mark.parametrize(("inputs", "values"), COLUMNS.values(), ids=COLUMNS)
def test_inputs_of_other_servers_are_answered_as_instances(inputs, values):
    holds(decode(as_json({"signature_name": "x", "inputs": inputs}), JSON), values, False, "predictions")


@pytest.mark.parametrize("inputs", [{}, {"a": ONE.tolist(), "b": 1}, [], 5, None], ids=str)
def test_other_inputs_are_refused(inputs):
    with pytest.raises(problems.Unprocessable):
        decode(as_json({"inputs": inputs}), JSON)


def test_fields_beside_a_file_are_ignored():
    file = Part(PNG, "image/png", "image")
    comment, empty = Part(b"Upload [it]", "text/plain", "submit", True), Part(b"", "text/plain", "comment", True)
    slot = Part(b"", OCTETS, "image2", True)
    for parts in ([file, comment], [comment, file], [file, empty], [slot, file, empty]):
        holds(decoding.decode(parts, FASHION), ONE[None], single=True)
    text = Part(B64.encode(), "text/plain", "image", True)
    holds(decoding.decode([text, comment], FASHION), ONE[None], single=True)


def test_a_problem_names_the_part_of_the_form():
    file, wrong = Part(PNG, "image/png", "image"), Part(b'{"top_k": 3}', JSON, "options")
    with pytest.raises(problems.Unprocessable, match=r"^part 2 of the form \(options\): a JSON object needs"):
        decoding.decode([file, wrong], FASHION)
    with pytest.raises(problems.Malformed, match=r"^part 2 of the form \(image\): the body is empty"):
        decoding.decode([file, Part(b"", "image/png", "image")], FASHION)
    with pytest.raises(problems.UnsupportedFormat, match=r"^part 2 of the form \(a\): unrecognized content"):
        decoding.decode([Part(b"1", "text/plain", "a", True)] * 2, FASHION)


URL_ENCODED = {
    "base64": urllib.parse.urlencode({"image": B64}),
    "a data: URL": urllib.parse.urlencode({"image": f"data:image/png;base64,{B64}"}),
    "with other fields": urllib.parse.urlencode({"id": "7", "comment": "a=b&c [d]", "image": B64, "empty": ""}),
    "JSON": urllib.parse.urlencode({"image": json.dumps(ONE.tolist())}),
    "bare base64": urllib.parse.quote(B64, safe=""),
    "bare data: URL": "data:image/png;base64," + urllib.parse.quote(B64, safe=""),
    "unencoded": f"image={B64}",
}


@pytest.mark.parametrize("form", URL_ENCODED.values(), ids=URL_ENCODED)
def test_a_url_encoded_form_of_one_image(form):
    holds(decode(form.encode(), FORM), ONE[None], single=True)


@pytest.mark.parametrize("field", [b"a=1&b=2", b"%" * 700_000, b"&" * 20_000, b"=", b"a=%5Bx"], ids=range(5))
def test_a_url_encoded_form_without_an_image_is_refused(field):
    with pytest.raises((problems.UnsupportedFormat, problems.TooLarge)):
        decode(field, FORM)


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/x-image", "binary/octet-stream", "application/binary", "image", "application/png", "*/*"),
        *(JSON, NPY, FORM, "text/plain", "video/mp4"),
    ],
)
def test_an_image_file_may_have_any_content_type(content_type):
    holds(decode(PNG, content_type), ONE[None], single=True)
    parts = [Part(PNG, content_type), Part(PNG, "multipart/form-data")]
    holds(decoding.decode(parts, FASHION), MANY[[0, 0]], single=False)


FOREIGN = {
    "HEIF sequence": b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc" + bytes(500),
    "BigTIFF": image_files.save(ONE, "TIFF", big_tiff=True),
    "JPEG 2000": image_files.save(ONE, "JPEG2000"),
    "ICO": image_files.save(ONE, "ICO"),
    "PPM": image_files.save(ONE, "PPM"),
    "PDF": b"%PDF-1.7" + bytes(500),
    "SVG": b"<?xml version='1.0'?>\n<!-- a -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "zip": b"PK\x03\x04" + bytes(500),
    "--data-binary": PNG.replace(b"\r", b"").replace(b"\n", b""),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("content_type", [OCTETS, "image/png", "application/x-unknown", ""])
def test_another_file_is_named(name, content_type):
    body = FOREIGN[name]
    # Also where the length is by chance that of raw pixels.
    for sent in (body, body + bytes(-len(body) % 784) + bytes(784)):
        with pytest.raises(problems.UnsupportedFormat, match=f"{name}.*; send "):
            decode(sent, content_type)
    if name not in ("HEIF sequence", "JPEG 2000", "ICO"):
        assert decoding.pictures([(body + bytes(784))[:784], bytes(784)], OCTETS, FASHION) is None


HEIC = image_files.stored("tiles.heic")
AVIF, TIFF = (image_files.save(ONE, format_) for format_ in ("AVIF", "TIFF"))


@pytest.mark.parametrize("file", [HEIC, AVIF, TIFF], ids=["HEIC", "AVIF", "TIFF"])
@pytest.mark.parametrize("content_type", [OCTETS, "image/png", "text/plain", FORM, "application/x-unknown", ""])
def test_heic_avif_and_tiff_are_recognized_by_their_content(file, content_type):
    expected = decode(file, "image/x")
    holds(decode(file, content_type), expected.values, single=True)
    if content_type not in ("image/png", "application/x-unknown"):
        holds(decode(base64.b64encode(file), content_type), expected.values, single=True)


@pytest.mark.parametrize("body", [B64.encode(), as_json(ONE.tolist())], ids=["base64", "JSON"])
def test_text_typed_as_raw_values_is_read_as_text(body):
    for sent in (body, body + b"\n" * (-len(body) % 784)):
        holds(decode(sent, OCTETS), ONE[None], single=True)


def test_nested_lists_of_objects_are_refused():
    deep = b'{"data":[' * 400 + b'"x"' + b"]}" * 400
    for body in (deep, b'{"inputs":{"a":' + deep + b"}}", b"[" * 900 + b"]" * 900, b"[" * 20 + b"1" + b"]" * 20):
        with pytest.raises(problems.Unprocessable):
            decode(body, JSON)


def test_parts_keep_their_order():
    parts = [
        Part(image_files.save(MANY[0]), "image/png"),
        Part(MANY[1].tobytes(), OCTETS),
        Part(as_json(MANY[2].tolist()), ""),
    ]
    holds(decoding.decode(parts, FASHION), MANY, single=False)
    holds(decoding.decode(parts[:1], FASHION), MANY[:1], single=True)
    several = [Part(npy_files.save(MANY[:2]), NPY), Part(image_files.save(MANY[2]), "")]
    holds(decoding.decode(several, FASHION), MANY, single=False)


def test_prepare_reaches_every_image_file():
    catalog = image_files.save(255 - np.kron(ONE, np.ones((4, 4), np.uint8)))
    converted, resized = (decode(catalog, "image/png", prepare=prepare).values for prepare in ("auto", "none"))
    np.testing.assert_array_equal(resized[0], 255 - ONE)
    assert not np.array_equal(converted, resized)
    encoded = base64.b64encode(catalog).decode()
    np.testing.assert_array_equal(decode(as_json([encoded]), JSON, prepare="none").values, resized)


# --- vectors ---

ROWS = np.array([[0.5, -1, 2, 1e6], [1, 2, 3, 4]], np.float32)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ROWS.astype("<f4").tobytes(), OCTETS),
        (ROWS.astype("<f4").tobytes(), ""),
        (npy_files.save(ROWS), NPY),
        (npy_files.save(ROWS.astype(">f8")), NPY),
        (as_json(ROWS.tolist()), JSON),
        (as_json({"instances": ROWS.tolist()}), JSON),
        (as_json([{"features": row} for row in ROWS.tolist()]), JSON),
    ],
)
def test_vectors(body, content_type):
    decoded = decode(body, content_type, VECTOR)
    np.testing.assert_array_equal(decoded.values, ROWS)
    assert decoded.values.dtype == np.float32
    assert not decoded.single


def test_one_vector():
    for body, content_type in [(ROWS[1].tobytes(), OCTETS), (npy_files.save(ROWS[1]), NPY), (b"[1, 2, 3, 4]", JSON)]:
        decoded = decode(body, content_type, VECTOR)
        np.testing.assert_array_equal(decoded.values, ROWS[1:])
        assert decoded.single


@pytest.mark.parametrize("body", [PNG, as_json(B64), as_json({"instances": [{"b64": B64}]})], ids=["PNG", "b64", "v1"])
def test_a_vector_model_takes_no_images(body):
    with pytest.raises(problems.UnsupportedFormat, match="no images"):
        decode(body, "", VECTOR)


# --- Open Inference Protocol ---


def test_inference_requests_are_recognized():
    tensor = {"name": "image", "shape": [3, 28, 28], "datatype": "UINT8"}
    text = as_json({"id": "x", "inputs": [{**tensor, "data": MANY.ravel().tolist()}]})
    for content_type in (JSON, "", "text/plain"):
        decoded = decode(text, content_type)
        assert isinstance(decoded.envelope, open_inference.Request)
        assert decoded.envelope.id == "x"
        np.testing.assert_array_equal(decoded.values, MANY)
    header = as_json({"inputs": [{**tensor, "parameters": {"binary_data_size": MANY.size}}]})
    decoded = decode(header + MANY.tobytes(), OCTETS, json_length=len(header))
    np.testing.assert_array_equal(decoded.values, MANY)
    escaped = text.replace(b'"inputs"', rb'"\u0069nputs"')
    np.testing.assert_array_equal(decode(escaped, JSON).values, MANY)
    both = as_json({"instances": MANY.tolist(), "inputs": 1})
    holds(decode(both, JSON), MANY, False, "predictions")


def test_a_json_length_needs_a_single_body():
    with pytest.raises(problems.Malformed, match="multipart"):
        decoding.decode([Part(PNG, ""), Part(PNG, "")], FASHION, json_length=10)


# --- what is refused ---


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


MALFORMED = {
    "empty": (b"", JSON),
    "empty image": (b"", "image/png"),
    "cut JSON": (b"[[1, 2", JSON),
    "two JSON texts": (b"[1][2]", JSON),
    "trailing comma": (b"[1,]", JSON),
    "not UTF-8": (b'["\xff"]', JSON),
    "too deep": (nested(5000), JSON),
    "nothing but letters": (b"hello", JSON),
    "not base64": (as_json("iVBORw0K!!!!"), JSON),
    "base64 of an odd length": (as_json("iVBOR"), JSON),
    "base64 of nothing in an image": (as_json({"b64": B64[:60]}), JSON),
    "cut PNG": (PNG[:60], "image/png"),
    "cut npy": (npy_files.save(ONE)[:200], NPY),
}
UNSUPPORTED = {
    "XML": (b"<a/>", "application/xml"),
    "PDF": (b"%PDF-1.7", ""),
    "text": (b"hello", "text/plain"),
    "a form": (b"a=1&b=2", FORM),
    "BigTIFF": (b"II+\0" + bytes(100), "image/tiff"),
    "base64 of text": (as_json("aGVsbG8="), JSON),
    "an empty string": (as_json(""), JSON),
    "video": (bytes(784), "video/mp4"),
}
UNPROCESSABLE = {
    "783 bytes": (bytes(783), OCTETS),
    "27 columns": (as_json(np.zeros((28, 27), int).tolist()), JSON),
    "no example": (b"[]", JSON),
    "no instance": (b'{"instances": []}', JSON),
    "empty rows": (as_json([[]] * 28), JSON),
    "npy without examples": (npy_files.save(np.zeros((0, 28, 28), np.uint8)), NPY),
    "a number": (b"5", JSON),
    "null": (b"null", JSON),
    "true": (b"true", JSON),
    "an empty object": (b"{}", JSON),
    "an object of other names": (b'{"pixels": [1]}', JSON),
    "ragged": (as_json([[0] * 28] * 27 + [[0] * 27]), JSON),
    "lists beside numbers": (as_json([[0] * 28] * 27 + [0]), JSON),
    "numbers beside lists": (as_json([0, [0] * 28]), JSON),
    "256": (as_json([[256] * 28] * 28), JSON),
    "-1": (as_json([[-1] * 28] * 28), JSON),
    "a huge integer": (as_json([[10**18] * 28] * 28), JSON),
    "1.5": (as_json([[1.5] * 28] * 28), JSON),
    "-0.1": (as_json([[-0.1] * 28] * 28), JSON),
    "255.0": (as_json([[255.0] * 28] * 28), JSON),
    "NaN": (as_json([[float("nan")] * 28] * 28), JSON),
    "Infinity": (as_json([[float("inf")] * 28] * 28), JSON),
    "1e999": (b"[[" + b"1e999," * 27 + b"0]]", JSON),
    "a boolean": (as_json([[True] * 28] * 28), JSON),
    "a boolean among fractions": (as_json([[0.5] * 28] * 27 + [[0.5] * 27 + [False]]), JSON),
    "null among pixels": (as_json([[0] * 28] * 27 + [[0] * 27 + [None]]), JSON),
    "a string among pixels": (as_json([[0] * 28] * 27 + [[0] * 27 + ["1"]]), JSON),
    "numbers as strings": (as_json([["1"] * 28] * 28), JSON),
    "an object among pixels": (as_json([[0] * 28] * 27 + [[0] * 27 + [{}]]), JSON),
    "five axes": (as_json([[[[[0]]]]]), JSON),
    "instances not in a list": (b'{"instances": 3}', JSON),
    "instances of numbers": (b'{"instances": [1, 2]}', JSON),
    "one image as instances": (as_json({"instances": ONE.tolist()}), JSON),
    "several images in one instance": (as_json({"instances": [{"image": MANY.tolist()}]}), JSON),
    "b64 not a string": (b'{"b64": 5}', JSON),
    "image not an image": (b'{"image": {"b64": {"b64": "x"}}}', JSON),
    "wrapped too deeply": (b'{"image": {"image": {"image": "x"}}}', JSON),
    "npy of NaN": (npy_files.save(np.full((28, 28), np.nan)), NPY),
    "npy of -inf": (npy_files.save(np.full((28, 28), -np.inf)), NPY),
    "npy of booleans": (npy_files.save(ONE > 0), NPY),
    "npy of objects": (npy_files.save(np.array([[None]])), NPY),
    "npy of another shape": (npy_files.save(np.zeros((28, 29), np.uint8)), NPY),
    "npy of one number": (npy_files.save(np.uint8(3)), NPY),
    "npy out of range": (npy_files.save(ONE.astype(int) + 1000), NPY),
}
TOO_LARGE = {
    "too many raw images": (bytes(784 * (limits.EXAMPLES + 1)), OCTETS),
    "too many images in npy": (npy_files.save(np.zeros((limits.EXAMPLES + 1, 784), np.uint8)), NPY),
    "too many strings": (as_json(["x"] * (limits.EXAMPLES + 1)), JSON),
    "too many numbers": (b"[" + b"0," * (limits.EXAMPLES * 784) + b"0]", JSON),
    "too many rows": (b"[" + b"[" + b"0," * 783 + b"0]" + (b",[" + b"0," * 783 + b"0]") * limits.EXAMPLES + b"]", JSON),
    "too many empty lists": (b"[" + b"[]," * limits.JSON_VALUES + b'""]', JSON),
    "too many objects": (b"[" + b"{}," * limits.JSON_VALUES + b"{}]", JSON),
    "too many bytes of JSON": (as_json("x" * limits.JSON_BYTES), JSON),
    "too many bytes of base64": (b"iVBORw0K" + b"A" * limits.JSON_BYTES, "text/plain"),
    "too many bytes of a picture": (PNG + bytes(limits.IMAGE_BYTES), "image/png"),
    "a picture of many pixels": (image_files.png_declaring(20_000, 20_000), "image/png"),
}


@pytest.mark.parametrize(("body", "content_type"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(body, content_type):
    with pytest.raises(problems.Malformed):
        decode(body, content_type)


@pytest.mark.parametrize(("body", "content_type"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported(body, content_type):
    with pytest.raises(problems.UnsupportedFormat, match="send"):
        decode(body, content_type)


@pytest.mark.parametrize(("body", "content_type"), UNPROCESSABLE.values(), ids=UNPROCESSABLE)
def test_unprocessable(body, content_type):
    with pytest.raises(problems.Unprocessable):
        decode(body, content_type)


@pytest.mark.parametrize(("body", "content_type"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large(body, content_type):
    with pytest.raises(problems.TooLarge):
        decode(body, content_type)


def test_the_json_of_a_binary_request_may_be_too_long():
    with pytest.raises(problems.TooLarge, match="inference request"):
        decode(bytes(limits.JSON_BYTES + 2), OCTETS, json_length=limits.JSON_BYTES + 1)


def test_parts_together_may_be_too_many():
    half = Part(bytes(784 * (limits.EXAMPLES // 2 + 1)), OCTETS)
    with pytest.raises(problems.TooLarge):
        decoding.decode([half, half], FASHION)


def test_one_bad_part_refuses_the_request():
    with pytest.raises(problems.UnsupportedFormat):
        decoding.decode([Part(PNG, "image/png"), Part(b"hello", "image/png")], FASHION)
    with pytest.raises(problems.Malformed):
        decoding.decode([], FASHION)
    with pytest.raises(problems.Unprocessable, match="several parts"):
        decoding.decode([Part(PNG, ""), Part(as_json({"instances": [B64]}), JSON)], FASHION)


@pytest.mark.parametrize(
    "body",
    [
        as_json([1, 2, float("nan"), 4]),
        npy_files.save(np.array([1, np.inf, 2, 3])),
        npy_files.save(np.array([1e300, 0, 0, 0])),
        np.array([np.nan, 0, 0, 0], "<f4").tobytes(),
        b"[1, 2, 3, 1e300]",
        b"[1, 2, 3]",
        b'[1, 2, 3, "4"]',
        b"[1, 2, 3, true]",
        b"[1, 2, 3, null]",
    ],
)
def test_a_vector_of_wrong_values_is_refused(body):
    with pytest.raises(problems.Unprocessable):
        decode(body, "", VECTOR)


def test_whole_vector_features_may_be_of_any_size():
    decoded = decode(b"[1, -70000, 18446744073709551615]", JSON, SIGMOID)
    np.testing.assert_array_equal(decoded.values, np.array([[1, -70000, 2**64]], np.float32))


def test_messages_name_what_was_received_and_what_is_accepted():
    with pytest.raises(problems.Unprocessable, match=r"shape 28x27 .* 28x28, Nx28x28 or Nx784"):
        decode(npy_files.save(np.zeros((28, 27), np.uint8)), NPY)
    with pytest.raises(problems.Unprocessable, match=r"multiple of 784 bytes .*28x28 uint8.* got 783"):
        decode(bytes(783), OCTETS)
    with pytest.raises(problems.Unprocessable, match=r"multiple of 16 bytes .*4 float32.* got 12"):
        decode(bytes(12), OCTETS, VECTOR)
    with pytest.raises(problems.UnsupportedFormat, match="--data-binary"):
        decode(b"\x89PNG mangled", FORM)
    with pytest.raises(problems.Unprocessable, match="a string"):
        decode(as_json([[0.5, "x"]]), JSON)
    with pytest.raises(problems.Unprocessable, match="from 0 to 255, got 256"):
        decode(as_json([[1, 256]]), JSON)


def test_the_content_type_of_npy():
    assert npy.CONTENT_TYPE == NPY
