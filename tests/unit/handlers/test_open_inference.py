"""The Open Inference Protocol: requests, responses and metadata, byte for byte, without a server."""

import base64
import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import limits, problems
from handlers.inputs import open_inference
from handlers.outputs import open_inference as inference_response
from handlers.signature import Input, Output, Signature
from tests.support import image_files

LABELS = ("T-shirt/top", "Trouser", "Žabot")
IMAGE = Signature("m", "1.0", "", Input("image", "image", (28, 28), (784,)), Output("softmax", LABELS))
VECTOR = Signature("v", "2.0", "", Input("vector", "features", (3,), (3,)), Output("sigmoid", ("a", "b")))
PIXELS = np.arange(2 * 784, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32)


def tensor(data=None, shape=(2, 28, 28), datatype="UINT8", **more):
    described = {"name": "image", "shape": list(shape), "datatype": datatype, **more}
    return described if data is None else {**described, "data": data}


def as_json(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


def as_binary(values, shape=None, datatype="UINT8", **more):
    raw = values if isinstance(values, bytes) else values.tobytes()
    shape = values.shape if shape is None else shape
    header = as_json(tensor(None, shape, datatype, parameters={"binary_data_size": len(raw)}), **more)
    return header + raw, len(header)


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 784), (2, 1, 28, 28)], ids=str)
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_json_images_of_every_shape(shape, nested):
    data = PIXELS.reshape(shape) if nested else PIXELS.reshape(-1)
    values, _ = open_inference.parse(as_json(tensor(data.tolist(), shape)), None, IMAGE)
    np.testing.assert_array_equal(values, PIXELS)
    assert values.dtype == np.uint8


@pytest.mark.parametrize("shape", [(28, 28), (784,), (1, 28, 28), (1, 784), (1, 1, 28, 28)], ids=str)
def test_one_image_of_every_shape(shape):
    body, length = as_binary(PIXELS[0], shape)
    values, _ = open_inference.parse(body, length, IMAGE)
    np.testing.assert_array_equal(values, PIXELS[:1])


@pytest.mark.parametrize("shape", [(-1, 28, 28), (-1, 784), (-1, 1, 28, 28), ("-1", "28", "28", "1")], ids=str)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_the_batch_may_be_left_to_the_server(shape, binary):
    nested = PIXELS.reshape([2, *map(int, shape[1:])])
    bodies = (
        [as_binary(PIXELS, shape)]
        if binary
        else [(as_json(tensor(data.tolist(), shape)), None) for data in (PIXELS.ravel(), nested)]
    )
    for body, length in bodies:
        np.testing.assert_array_equal(open_inference.parse(body, length, IMAGE)[0], PIXELS)


def test_bytes_as_in_kserves_samples():
    text = base64.b64encode(image_files.save(PIXELS[0])).decode()
    for shape, data in (([-1], [text]), (-1, text), ([1], text), ([-1, 1], [text])):
        body = as_json({"name": "0b1e", "datatype": "BYTES", "shape": shape, "data": data})
        np.testing.assert_array_equal(open_inference.parse(body, None, IMAGE)[0], PIXELS[:1])


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_64_bit_integers_may_be_text(datatype):
    body = as_json(tensor([str(value) for value in PIXELS.ravel()], ("2", "784"), datatype))
    np.testing.assert_array_equal(open_inference.parse(body, None, IMAGE)[0], PIXELS)
    for wrong in ("", "x", "1.0", "9" * 21):
        with pytest.raises(problems.Unprocessable):
            open_inference.parse(as_json(tensor([wrong] * 784, (1, 784), datatype)), None, IMAGE)


def test_the_base64_codec_of_mlserver():
    text = base64.b64encode(image_files.save(PIXELS[0]))
    parameters = {"content_type": "base64"}
    body = as_json(tensor([text.decode()], (1,), "BYTES", parameters=parameters))
    np.testing.assert_array_equal(open_inference.parse(body, None, IMAGE)[0], PIXELS[:1])
    raw = struct.pack("<I", len(text)) + text
    header = as_json(tensor(None, (1,), "BYTES", parameters={**parameters, "binary_data_size": len(raw)}))
    np.testing.assert_array_equal(open_inference.parse(header + raw, len(header), IMAGE)[0], PIXELS[:1])


@pytest.mark.parametrize("datatype", [name for name in open_inference.DATATYPES if "INT" in name])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_integer_pixels_of_every_datatype(datatype, binary):
    pixels = PIXELS % 128  # what INT8 can hold
    if binary:
        body, length = as_binary(pixels.astype(open_inference.DATATYPES[datatype]), datatype=datatype)
    else:
        body, length = as_json(tensor(pixels.tolist(), datatype=datatype)), None
    values, _ = open_inference.parse(bytearray(body), length, IMAGE)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, pixels)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_fractions_of_every_float_datatype(datatype, binary):
    fractions = (PIXELS / 255).astype(open_inference.DATATYPES[datatype])
    if binary:
        body, length = as_binary(fractions, datatype=datatype)
    else:
        body, length = as_json(tensor(fractions.astype(float).tolist(), datatype=datatype)), None
    values, _ = open_inference.parse(body, length, IMAGE)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, PIXELS, atol=0.07 if datatype == "FP16" else 1e-4)


def test_vectors_keep_their_values():
    features = np.array([[-1.5, 0, 1e6], [2, 3, 4]], "<f4")
    body, length = as_binary(features, datatype="FP32")
    values, _ = open_inference.parse(body, length, VECTOR)
    np.testing.assert_array_equal(values, features)
    body = as_json(tensor([1, 2.5, -3], (3,), "FP64"))
    values, _ = open_inference.parse(body, None, VECTOR)
    np.testing.assert_array_equal(values, [[1, 2.5, -3]])


def test_a_raw_request_is_only_the_tensor_and_is_answered_in_binary():
    values, request = open_inference.parse(PIXELS.tobytes(), 0, IMAGE)
    np.testing.assert_array_equal(values, PIXELS)
    assert request == open_inference.Request("", {}, (), True)
    features = np.arange(6, dtype="<f4").reshape(2, 3)
    np.testing.assert_array_equal(open_inference.parse(features.tobytes(), 0, VECTOR)[0], features)


@pytest.mark.parametrize("shape", [(2,), (2, 1)], ids=str)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_image_files_are_elements_of_bytes(shape, binary):
    files = [image_files.save(image) for image in PIXELS]
    if binary:
        raw = b"".join(struct.pack("<I", len(file)) + file for file in files)
        body, length = as_binary(raw, shape, "BYTES")
    else:
        body, length = as_json(tensor([base64.b64encode(file).decode() for file in files], shape, "BYTES")), None
    values, _ = open_inference.parse(body, length, IMAGE)
    np.testing.assert_array_equal(values, PIXELS)


ONE = PIXELS[0].ravel().tolist()
GOOD = tensor(ONE, (1, 784))


def classified(count, name="probabilities", **more):
    return as_json(GOOD, outputs=[{"name": name, "parameters": {"classification": count, **more}}])


BAD_JSON = {
    "not JSON": (b'{"inputs": [', problems.Malformed),
    "not UTF-8": (b'{"inputs": "\xff"}', problems.Malformed),
    "NaN literal": (as_json(tensor([float("nan")] * 784, (784,), "FP32")), problems.Unprocessable),
    "empty": (b"", problems.Malformed),
    "a list": (b"[]", problems.Malformed),
    "deep nesting": (b'{"inputs":' + b"[" * 100_000, problems.Malformed),
    "a million values": (b'{"inputs": [' + b"0," * 10**6 + b"0]}", problems.TooLarge),
    "no inputs": (b"{}", problems.Malformed),
    "inputs not a list": (b'{"inputs": {}}', problems.Malformed),
    "an input not an object": (b'{"inputs": [1]}', problems.Malformed),
    "no input": (as_json(), problems.Unprocessable),
    "two inputs": (as_json(GOOD, {**GOOD, "name": "other"}), problems.Unprocessable),
    "duplicate input": (as_json(GOOD, GOOD), problems.Unprocessable),
    "no name": (as_json({k: v for k, v in GOOD.items() if k != "name"}), problems.Malformed),
    "no shape": (as_json({k: v for k, v in GOOD.items() if k != "shape"}), problems.Malformed),
    "no datatype": (as_json({k: v for k, v in GOOD.items() if k != "datatype"}), problems.Malformed),
    "no data": (as_json({k: v for k, v in GOOD.items() if k != "data"}), problems.Malformed),
    "null shape": (as_json({**GOOD, "shape": None}), problems.Malformed),
    "data a string": (as_json({**GOOD, "data": "AAAA"}), problems.Malformed),
    "unknown datatype": (as_json({**GOOD, "datatype": "BF16"}), problems.Unprocessable),
    "boolean datatype": (as_json({**GOOD, "datatype": "BOOL"}), problems.Unprocessable),
    "negative length": (as_json({**GOOD, "shape": [1, -1]}), problems.Unprocessable),
    "a first length of -2": (as_json({**GOOD, "shape": [-2, 784]}), problems.Unprocessable),
    "values for half an example": (as_json({**GOOD, "shape": [-1, 784], "data": [*ONE, 1]}), problems.Malformed),
    "no values for -1": (as_json({**GOOD, "shape": [-1, 784], "data": []}), problems.Unprocessable),
    "-1 of nothing": (as_json({**GOOD, "shape": [-1, 0]}), problems.Malformed),
    "both negative": (as_json({**GOOD, "shape": [-1, -784]}), problems.Unprocessable),
    "overflowing shape": (as_json({**GOOD, "shape": [2**63, 2**63, 2]}), problems.Malformed),
    "overflowing empty shape": (as_json({**GOOD, "shape": [0, 2**63, 2**63], "data": []}), problems.Unprocessable),
    "empty shape": (as_json({**GOOD, "shape": [], "data": [1]}), problems.Unprocessable),
    "a hundred axes": (as_json({**GOOD, "shape": [1] * 100 + [784]}), problems.Unprocessable),
    "a hundred thousand axes": (as_json({**GOOD, "shape": [2**64 - 1] * 100_000}), problems.Unprocessable),
    "fraction in shape": (as_json({**GOOD, "shape": [1.0, 784]}), problems.Unprocessable),
    "boolean in shape": (as_json({**GOOD, "shape": [True, 784]}), problems.Unprocessable),
    "nothing": (as_json({**GOOD, "shape": [0, 784], "data": []}), problems.Unprocessable),
    "other shape": (as_json(tensor([0] * 64, (1, 8, 8))), problems.Unprocessable),
    "three channels": (as_json(tensor([0] * 2352, (1, 3, 28, 28))), problems.Unprocessable),
    "too few values": (as_json({**GOOD, "data": ONE[1:]}), problems.Malformed),
    "too many values": (as_json({**GOOD, "data": [*ONE, 1]}), problems.Malformed),
    "ragged": (as_json(tensor([[*ONE[1:]], [*ONE, 0]], (2, 784))), problems.Malformed),
    "nested otherwise": (as_json(tensor(PIXELS[:1].tolist(), (1, 784))), problems.Malformed),
    "strings": (as_json({**GOOD, "data": ["1"] * 784}), problems.Unprocessable),
    "null values": (as_json({**GOOD, "datatype": "FP32", "data": [None] * 784}), problems.Unprocessable),
    "booleans": (as_json({**GOOD, "data": [True] * 784}), problems.Unprocessable),
    "fractions as integers": (as_json({**GOOD, "data": [0.5] * 784}), problems.Unprocessable),
    "over 255": (as_json({**GOOD, "datatype": "INT32", "data": [256] * 784}), problems.Unprocessable),
    "over the datatype": (as_json({**GOOD, "data": [256] * 784}), problems.Unprocessable),
    "under 0": (as_json({**GOOD, "datatype": "INT64", "data": [-1] * 784}), problems.Unprocessable),
    "floats over 1": (as_json({**GOOD, "datatype": "FP32", "data": [1.5] * 784}), problems.Unprocessable),
    "floats over FP16": (as_json({**GOOD, "datatype": "FP16", "data": [1e300] * 784}), problems.Unprocessable),
    "BYTES not base64": (as_json(tensor(["%"], (1,), "BYTES")), problems.Malformed),
    "BYTES of numbers": (as_json(tensor([1], (1,), "BYTES")), problems.Unprocessable),
    "BYTES not an image": (as_json(tensor(["AAAA"], (1,), "BYTES")), problems.UnsupportedFormat),
    "BYTES cut short": (
        as_json(tensor([base64.b64encode(image_files.save(PIXELS[0])[:-30]).decode()], (1,), "BYTES")),
        problems.Malformed,
    ),
    "BYTES of another shape": (as_json(tensor(["", ""], (1, 2), "BYTES")), problems.Unprocessable),
    "BYTES of nothing": (as_json(tensor([], (0,), "BYTES")), problems.Unprocessable),
    "id a number": (as_json(GOOD, id=7), problems.Malformed),
    "parameters a list": (as_json(GOOD, parameters=[1]), problems.Malformed),
    "parameters nested": (as_json(GOOD, parameters={"a": {}}), problems.Malformed),
    "binary_data_output a string": (as_json(GOOD, parameters={"binary_data_output": "yes"}), problems.Malformed),
    "outputs an object": (as_json(GOOD, outputs={"name": "class"}), problems.Malformed),
    "outputs of strings": (as_json(GOOD, outputs=["class"]), problems.Malformed),
    "output without a name": (as_json(GOOD, outputs=[{}]), problems.Malformed),
    "output twice": (as_json(GOOD, outputs=[{"name": "class"}, {"name": "class"}]), problems.Unprocessable),
    "classification of none": (classified(0), problems.Unprocessable),
    "classification of a text": (classified("2"), problems.Unprocessable),
    "classification of true": (classified(True), problems.Unprocessable),
    "classification of classes": (classified(2, "class"), problems.Unprocessable),
    "shared memory": (
        as_json(GOOD, outputs=[{"name": "class", "parameters": {"shared_memory_region": "a"}}]),
        problems.Unprocessable,
    ),
    "binary_data a number": (
        as_json(GOOD, outputs=[{"name": "class", "parameters": {"binary_data": 1}}]),
        problems.Malformed,
    ),
    "binary without its header": (as_binary(PIXELS)[0], problems.Malformed),
    "binary size without binary": (as_json(tensor(parameters={"binary_data_size": 1568})), problems.Malformed),
}


@pytest.mark.parametrize(("body", "problem"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused(body, problem):
    with pytest.raises(problem) as caught:
        open_inference.parse(body, None, IMAGE)
    assert type(caught.value) is problem
    assert len(caught.value.detail) < 300


def binary_with(size, sent, shape=(1, 784), datatype="UINT8", data=None):
    header = as_json(tensor(data, shape, datatype, parameters={"binary_data_size": size}))
    return header + sent, len(header)


BAD_BINARY = {
    "header longer than the body": (as_json(GOOD), 10**9, problems.Malformed),
    "header one byte short": (*(lambda b, n: (b, n - 1))(*as_binary(PIXELS)), problems.Malformed),
    "header one byte long": (*(lambda b, n: (b, n + 1))(*as_binary(PIXELS)), problems.Malformed),
    "one byte missing": (*binary_with(784, bytes(783)), problems.Malformed),
    "one byte more": (*binary_with(784, bytes(785)), problems.Malformed),
    "size not that of the shape": (*binary_with(785, bytes(785)), problems.Malformed),
    "size not that of the datatype": (*binary_with(784, bytes(784), datatype="FP32"), problems.Malformed),
    "negative size": (*binary_with(-784, bytes(784)), problems.Malformed),
    "size a string": (*binary_with("784", bytes(784)), problems.Malformed),
    "nothing": (*binary_with(0, b"", (0, 784)), problems.Unprocessable),
    "overflowing": (*binary_with(784, bytes(784), (2**64 - 1, 784)), problems.Malformed),
    "data too": (*binary_with(784, bytes(784), data=ONE), problems.Malformed),
    "undeclared bytes": (as_json(GOOD) + b"\0", len(as_json(GOOD)), problems.Malformed),
    "other shape": (*binary_with(64, bytes(64), (1, 8, 8)), problems.Unprocessable),
    "NaN": (*as_binary(np.full((1, 784), np.nan, "<f4"), datatype="FP32"), problems.Unprocessable),
    "infinity": (*as_binary(np.full((1, 784), np.inf, "<f2"), datatype="FP16"), problems.Unprocessable),
    "BYTES length past the end": (*as_binary(b"\xff\xff\xff\xff", (1,), "BYTES"), problems.Malformed),
    "BYTES length cut": (*as_binary(b"\0\0", (1,), "BYTES"), problems.Malformed),
    "BYTES too few": (*as_binary(bytes(4), (2,), "BYTES"), problems.Malformed),
    "BYTES too many": (*as_binary(bytes(8), (1,), "BYTES"), problems.Malformed),
    "BYTES empty": (*as_binary(bytes(4), (1,), "BYTES"), problems.UnsupportedFormat),
    "raw of a wrong length": (bytes(785), 0, problems.Malformed),
    "raw of nothing": (b"", 0, problems.Malformed),
}


@pytest.mark.parametrize(("body", "length", "problem"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_bad_binary_is_refused(body, length, problem):
    with pytest.raises(problem) as caught:
        open_inference.parse(bytearray(body), length, IMAGE)
    assert type(caught.value) is problem


def test_vectors_take_no_images():
    with pytest.raises(problems.Unprocessable, match="datatype 'BYTES'"):
        open_inference.parse(as_json(tensor(["AAAA"], (1,), "BYTES")), None, VECTOR)


def test_vectors_take_no_value_beyond_float32():
    with pytest.raises(problems.Unprocessable):
        open_inference.parse(as_json(tensor([1e300, 0, 0], (3,), "FP64")), None, VECTOR)


@pytest.mark.parametrize("length", [None, 0], ids=["binary", "raw"])
def test_too_many_examples_are_refused(length):
    images = np.zeros((limits.EXAMPLES + 1, 28, 28), np.uint8)
    body, json_length = (images.tobytes(), 0) if length == 0 else as_binary(images)
    with pytest.raises(problems.TooLarge):
        open_inference.parse(body, json_length, IMAGE)


@pytest.mark.parametrize(("text", "value"), [(None, None), ("0", 0), ("165", 165)])
def test_the_json_length_header_is_read(text, value):
    assert open_inference.read_json_length(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "+1", "0x10", "1_000", " 1", "٣", "9" * 40, "one"])
def test_a_bad_json_length_header_is_refused(text):
    with pytest.raises(problems.Malformed, match="Inference-Header-Content-Length"):
        open_inference.read_json_length(text)


def answer(request, **kwargs):
    _, parsed = open_inference.parse(request, None, kwargs.get("signature", IMAGE))
    return inference_response.encode(parsed, kwargs.get("probabilities", PROBABILITIES), kwargs.get("signature", IMAGE))


def test_a_json_answer_has_every_output_by_default():
    body, content_type, length = answer(as_json(GOOD))
    assert (content_type, length) == ("application/json", None)
    probabilities, classes, labels = (decoded := json.loads(body)).pop("outputs")
    assert decoded == {"model_name": "m", "model_version": "1.0", "id": ""}
    assert probabilities.pop("data") == pytest.approx(PROBABILITIES.ravel().tolist(), abs=1e-7)
    assert probabilities == {"name": "probabilities", "datatype": "FP32", "shape": [2, 3]}
    assert classes == {"name": "class", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    assert labels == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Trouser", "Žabot"]}


def test_json_probabilities_are_the_same_float32():
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), 100).astype(np.float32)
    body, _, _ = answer(as_json(GOOD), probabilities=probabilities)
    received = np.array(json.loads(body)["outputs"][0]["data"], np.float32).reshape(100, 3)
    np.testing.assert_array_equal(received, probabilities)


@pytest.mark.parametrize("more", [{}, {"id": None}, {"outputs": []}], ids=str)
def test_optional_members_may_be_null_or_empty(more):
    assert json.loads(answer(as_json(GOOD, **more))[0])["id"] == ""


def test_the_id_and_own_parameters_are_returned():
    request = as_json(GOOD, id="42", parameters={"mine": "x", "n": 1, "binary_data_output": False})
    decoded = json.loads(answer(request)[0])
    assert decoded["id"] == "42"
    assert decoded["parameters"] == {"mine": "x", "n": 1}


def binary_outputs(body, length):
    """The raw bytes of each output, by name, as the extension lays them out."""
    header, at, raw = json.loads(body[:length]), length, {}
    for output in header["outputs"]:
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            raw[output["name"]] = body[at : at + size]
            at += size
    assert at == len(body)
    return header, raw


def test_a_binary_answer():
    body, content_type, length = answer(as_json(GOOD, parameters={"binary_data_output": True}))
    assert content_type == "application/octet-stream"
    header, raw = binary_outputs(body, length)
    assert [output["name"] for output in header["outputs"]] == ["probabilities", "class", "label"]
    assert raw["probabilities"] == PROBABILITIES.astype("<f4").tobytes()
    assert raw["class"] == struct.pack("<qq", 1, 2)
    assert raw["label"] == struct.pack("<I7sI6s", 7, b"Trouser", 6, "Žabot".encode())
    assert "parameters" not in header


def test_outputs_have_the_requested_order_and_form():
    outputs = [{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    header, raw = binary_outputs(*answer(as_json(GOOD, outputs=outputs))[::2])
    assert [output["name"] for output in header["outputs"]] == ["label", "probabilities"]
    assert header["outputs"][0]["data"] == ["Trouser", "Žabot"]
    assert raw == {"probabilities": PROBABILITIES.tobytes()}


def test_one_output_can_stay_in_json():
    outputs = [{"name": "class", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    request = as_json(GOOD, outputs=outputs, parameters={"binary_data_output": True})
    header, raw = binary_outputs(*answer(request)[::2])
    assert header["outputs"][0]["data"] == [1, 2]
    assert set(raw) == {"probabilities"}


def test_independent_labels_have_only_probabilities():
    probabilities = np.array([[0.9, 0.8]], np.float32)
    body, _, _ = answer(as_json(tensor([1, 2, 3], (3,), "FP32")), signature=VECTOR, probabilities=probabilities)
    assert [output["name"] for output in json.loads(body)["outputs"]] == ["probabilities"]
    with pytest.raises(problems.Unprocessable, match=r"the answer has probabilities$"):
        answer(as_json(tensor([1, 2, 3], (3,), "FP32"), outputs=[{"name": "class"}]), signature=VECTOR)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_classification_returns_the_most_probable_labels_as_text(count):
    expected = [
        ["0.500000:1:Trouser", "0.300000:2:Žabot", "0.200000:0:T-shirt/top"],
        # Equal probabilities keep the order of the labels.
        ["0.800000:2:Žabot", "0.100000:0:T-shirt/top", "0.100000:1:Trouser"],
    ]
    flat = [text for row in expected for text in row[:count]]
    described = {"name": "probabilities", "datatype": "BYTES", "shape": [2, min(count, 3)]}
    assert json.loads(answer(classified(count))[0])["outputs"] == [{**described, "data": flat}]
    header, raw = binary_outputs(*answer(classified(count, binary_data=True))[::2])
    assert header["outputs"][0]["shape"] == described["shape"]
    assert raw["probabilities"] == b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in flat)


EXPLAINED = np.arange(2 * 784, dtype=np.float32).reshape(2, 28, 28)


def explanation(request, length=None):
    _, parsed = open_inference.parse(request, length, IMAGE)
    return inference_response.encode_explanations(parsed, [1, 2], EXPLAINED, IMAGE)


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        ([], ["attributions", "target"]),
        (["target"], ["target"]),
        (["attributions"], ["attributions"]),
        (["target", "attributions"], ["target", "attributions"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_explanations_have_the_requested_outputs(requested, names, binary):
    outputs = [{"name": name} for name in requested]
    request = as_json(GOOD, outputs=outputs, parameters={"binary_data_output": binary})
    body, content_type, length = explanation(request)
    described = {output["name"]: output for output in json.loads(body[:length])["outputs"]}
    assert list(described) == names
    expected = {"attributions": EXPLAINED, "target": np.array([1, 2])}
    if binary:
        _, raw = binary_outputs(body, length)
        values = {
            name: np.frombuffer(raw[name], {"FP32": "<f4", "INT64": "<i8"}[described[name]["datatype"]])
            for name in names
        }
    else:
        assert content_type == "application/json"
        values = {name: described[name]["data"] for name in names}
    for name in names:
        assert described[name]["shape"] == list(expected[name].shape)
        np.testing.assert_array_equal(values[name], expected[name].ravel())


def test_each_output_of_an_explanation_has_its_own_form():
    outputs = [{"name": "target"}, {"name": "attributions", "parameters": {"binary_data": True}}]
    header, raw = binary_outputs(*explanation(as_json(GOOD, outputs=outputs))[::2])
    assert header["outputs"][0]["data"] == [1, 2]
    assert raw == {"attributions": EXPLAINED.tobytes()}


def test_a_raw_request_is_explained_in_binary():
    _, raw = binary_outputs(*explanation(PIXELS.tobytes(), 0)[::2])
    assert raw == {"attributions": EXPLAINED.tobytes(), "target": struct.pack("<qq", 1, 2)}


def test_outputs_of_the_other_task_are_refused_with_the_names_that_there_are():
    with pytest.raises(
        problems.Unprocessable, match="unknown output 'target'; the answer has probabilities, class, label"
    ):
        answer(as_json(GOOD, outputs=[{"name": "class"}, {"name": "target"}]))
    with pytest.raises(problems.Unprocessable, match="unknown output 'label'; the answer has attributions, target"):
        explanation(as_json(GOOD, outputs=[{"name": "label"}]))


def test_metadata_describes_the_tensors():
    assert inference_response.metadata(IMAGE, ["1.0", "1.1"]) == {
        "name": "m",
        "versions": ["1.0", "1.1"],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "class", "datatype": "INT64", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    vector = inference_response.metadata(VECTOR, ["2.0"])
    assert vector["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}]
    assert vector["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 2**64) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={"binary_data_size": st.integers(-1, 20) | JSON_VALUES, "binary_data": st.booleans() | JSON_VALUES},
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | JSON_VALUES,
        "shape": st.lists(st.sampled_from([-1, 0, 1, 2, 3, 28, 784, 2**63]), max_size=5) | JSON_VALUES,
        "datatype": st.sampled_from([*open_inference.DATATYPES, "BYTES", "BOOL"]) | JSON_VALUES,
        "data": st.lists(st.integers(0, 1), max_size=6) | JSON_VALUES,
        "parameters": PARAMETERS | JSON_VALUES,
    },
)
HEADERS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, min_size=1, max_size=1) | JSON_VALUES},
    optional={
        "id": JSON_VALUES,
        "parameters": PARAMETERS | JSON_VALUES,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["class", "label", "probabilities"]) | JSON_VALUES}),
            max_size=3,
        )
        | JSON_VALUES,
    },
)


@given(header=HEADERS, raw=st.binary(max_size=16), cut=st.integers(-2, 2), signature=st.sampled_from([IMAGE, VECTOR]))
def test_any_request_is_read_or_refused(header, raw, cut, signature):
    text = json.dumps(header).encode()
    for length in (None, len(text), max(0, len(text) + cut)):
        try:
            values, request = open_inference.parse(text + raw, length, signature)
        except problems.Problem:
            continue
        assert values.shape[1:] == signature.input.shape
        assert np.isfinite(values).all()
        scores = np.zeros((len(values), len(signature.output.labels)), np.float32)
        with contextlib.suppress(problems.Unprocessable):
            assert inference_response.encode(request, scores, signature)[0]
