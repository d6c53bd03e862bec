"""Requests as other programs send them, over HTTP and gRPC, give the answer of the plain request.

Each is written as the documentation or the client library of that program has it.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from PIL import Image

from serving.settings import HOST, ROOT
from serving.sidecars.grpc.proto import open_inference_pb2
from tests.support import image_files, npy_files
from tests.support.gateways import Gateway

BOOT = (ROOT / "examples" / "ankle_boot.png").read_bytes()
TEXT = base64.b64encode(BOOT).decode()
PIXELS = np.asarray(Image.open(io.BytesIO(BOOT)))
MANY = np.stack([PIXELS, 255 - PIXELS, PIXELS])
PREDICTIONS, PREDICT, INFER, EXPLAIN = (
    "/predictions/fashion_mlp",
    "/v1/models/fashion_mlp:predict",
    "/v2/models/fashion_mlp/infer",
    "/v2/models/fashion_mlp/explain",
)
TIMEOUT = 60


@pytest.fixture(scope="module")
def classes(gateway) -> list[int]:
    """The classes of ``MANY``; the first is that of ``BOOT``."""
    answers = _ok(gateway, PREDICTIONS, json=MANY.tolist()).json()
    assert answers[0]["label"] == "Ankle boot"
    return [answer["class"] for answer in answers]


def _ok(gateway: Gateway, path: str, **request: Any) -> requests.Response:
    answer = requests.post(gateway.url + path, timeout=TIMEOUT, **request)
    assert answer.status_code == 200, answer.text
    return answer


def _probabilities(gateway: Gateway, file: bytes, query: str = "") -> np.ndarray:
    headers = {"Accept": "application/octet-stream", "Content-Type": "application/octet-stream"}
    return np.frombuffer(_ok(gateway, PREDICTIONS + query, data=file, headers=headers).content, "<f4").reshape(-1, 10)


def _classes(answer: requests.Response) -> list[int]:
    document = answer.json()
    if isinstance(document, dict) and "outputs" in document:
        return next(list(output["data"]) for output in document["outputs"] if output["name"] == "class")
    answers = document["predictions"] if isinstance(document, dict) and "predictions" in document else document
    return [one["class"] for one in (answers if isinstance(answers, list) else [answers])]


@pytest.mark.parametrize("axis", [1, 3], ids=["PyTorch", "Keras"])
def test_arrays_with_a_channel_axis(gateway, classes, axis):
    values = np.expand_dims(MANY, axis)
    tensor = {"name": "image", "datatype": "UINT8", "shape": values.shape, "data": values.ravel().tolist()}
    npy = {"data": npy_files.save(values), "headers": {"Content-Type": "application/x-npy"}}
    for path, request in (
        (PREDICTIONS, {"json": values.tolist()}),
        (PREDICTIONS, npy),
        (PREDICTIONS, {"files": {"image": ("a.npy", npy["data"], "application/x-npy")}}),
        (PREDICT, {"json": {"signature_name": "serving_default", "instances": (values / 255).tolist()}}),
        (INFER, {"json": {"inputs": [tensor]}}),
    ):
        assert _classes(_ok(gateway, path, **request)) == classes


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("batch", [3, -1])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_grpc_tensors_with_a_channel_axis(gateway, classes, axis, batch, raw):
    values = np.expand_dims(MANY, axis)
    request = open_inference_pb2.ModelInferRequest(model_name="fashion_mlp")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=[batch, *values.shape[1:]])
    if raw:
        request.raw_input_contents.append(values.tobytes())
    else:
        tensor.contents.uint_contents.extend(values.ravel().tolist())
    request.outputs.add(name="class")
    with grpc.insecure_channel(f"{HOST}:{gateway.settings.grpc.number}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=open_inference_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=open_inference_pb2.ModelInferResponse.FromString,
        )
        answer = infer(request, timeout=TIMEOUT)
    answered = np.frombuffer(answer.raw_output_contents[0], "<i8") if raw else answer.outputs[0].contents.int64_contents
    assert list(answered) == classes


@pytest.mark.parametrize(
    "tensor",
    [
        {"datatype": "BYTES", "shape": [-1], "data": [TEXT]},
        {"datatype": "BYTES", "shape": -1, "data": TEXT},
        {"datatype": "BYTES", "shape": [1], "data": [TEXT], "parameters": {"content_type": "base64"}},
        {"datatype": "UINT8", "shape": [-1, 28, 28], "data": PIXELS.ravel().tolist()},
        {"datatype": "INT64", "shape": ["1", "784"], "data": [str(value) for value in PIXELS.ravel()]},
    ],
    ids=["KServe", "KServe, no lists", "MLServer", "batch left out", "protobuf's JSON"],
)
def test_tensors_of_samples(gateway, classes, tensor):
    answer = _ok(gateway, INFER, json={"id": "1", "inputs": [{"name": "0b1e", **tensor}]})
    assert _classes(answer) == classes[:1]


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize("requested", [[], ["attributions"], ["target", "attributions"]], ids=str)
def test_outputs_of_an_explanation(gateway, classes, requested, binary):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": PIXELS.ravel().tolist()}
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in requested]
    request = {"inputs": [tensor], "outputs": outputs, "parameters": {"binary_data_output": binary}}
    answer = _ok(gateway, EXPLAIN, json=request)
    length = int(answer.headers["Inference-Header-Content-Length"]) if binary else len(answer.content)
    described = json.loads(answer.content[:length])["outputs"]
    assert [output["name"] for output in described] == (requested or ["attributions", "target"])
    at = length
    for output in described:
        values = output.get("data")
        if binary:
            size = output["parameters"]["binary_data_size"]
            dtype = "<i8" if output["name"] == "target" else "<f4"
            values = np.frombuffer(answer.content[at : at + size], dtype).tolist()
            at += size
        assert values == classes[:1] if output["name"] == "target" else len(values) == 784
    assert at == len(answer.content)


def test_an_unknown_output_is_refused_with_the_known_ones(gateway):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": PIXELS.ravel().tolist()}
    for path, known in ((INFER, "probabilities, class, label, ood"), (EXPLAIN, "attributions, target")):
        request = {"inputs": [tensor], "outputs": [{"name": "heat"}]}
        answer = requests.post(gateway.url + path, json=request, timeout=TIMEOUT)
        assert answer.status_code == 422
        assert answer.json()["detail"] == f"unknown output 'heat'; the answer has {known}"


@pytest.mark.parametrize("path", [PREDICTIONS, PREDICT])
@pytest.mark.parametrize(
    "inputs",
    [[PIXELS.tolist()], PIXELS.tolist(), {"image": [PIXELS.tolist()]}, {"images": {"b64": TEXT}}, TEXT, [TEXT]],
    ids=["column", "one image", "named column", "named base64", "Hugging Face", "a list of base64"],
)
def test_inputs_of_other_servers(gateway, classes, path, inputs):
    assert _classes(_ok(gateway, path, json={"signature_name": "serving_default", "inputs": inputs})) == classes[:1]


def test_members_beside_instances_do_not_lower_the_limit(gateway):
    instances = (np.random.default_rng(0).integers(0, 256, (900, 28, 28)) / 255).tolist()
    for members in (
        {"signature_name": "a", "instances": instances},
        {"instances": instances, "parameters": {"b": [1]}},
    ):
        body = json.dumps(members)
        assert len(_classes(_ok(gateway, PREDICT, data=body, headers={"Content-Type": "application/json"}))) == 900


@pytest.mark.parametrize(
    "others",
    [
        [("user_id", (None, "42"))],
        [("submit", (None, "Upload")), ("comment", (None, ""))],
        [("image2", ("", b"", "application/octet-stream"))],
    ],
    ids=["text", "button and empty text", "empty slot"],
)
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_fields_beside_a_file(gateway, classes, others, last):
    file = ("image", ("shoe.png", BOOT, "image/png"))
    answer = _ok(gateway, PREDICTIONS, files=[file, *others] if last else [*others, file])
    assert isinstance(answer.json(), dict)
    assert _classes(answer) == classes[:1]


def test_a_wrong_part_of_a_form_is_named(gateway):
    files = {"image": ("shoe.png", BOOT, "image/png"), "options": (None, b'{"top_k": 3}', "application/json")}
    answer = requests.post(gateway.url + PREDICTIONS, files=files, timeout=TIMEOUT)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("part 2 of the form (options): ")


@pytest.mark.parametrize("kind", ["application/x-image", "binary/octet-stream", "image", "*/*", "application/json"])
def test_content_types_of_habit(gateway, classes, kind):
    assert _classes(_ok(gateway, PREDICTIONS, data=BOOT, headers={"Content-Type": kind})) == classes[:1]
    file = {"file": ("a.jpg", BOOT, "multipart/form-data")}
    assert _classes(_ok(gateway, PREDICTIONS, files=file)) == classes[:1]


def _enlarged(across: int, down: int) -> Image.Image:
    return Image.fromarray(np.kron(PIXELS, np.ones((down, across), np.uint8))).convert("RGB")


SMALL = _enlarged(12, 9)
TWELVE = _enlarged(144, 108)
FIFTY = _enlarged(292, 219)
ENLARGED = {
    "AVIF": lambda: image_files.save(SMALL, "AVIF", quality=90),
    "TIFF": lambda: image_files.save(SMALL, "TIFF", compression="tiff_lzw"),
    "PNG of 12 megapixels": lambda: image_files.save(TWELVE, compress_level=1),
    "WebP of 12 megapixels": lambda: image_files.save(TWELVE, "WEBP", method=0),
    "AVIF of 12 megapixels": lambda: image_files.save(TWELVE, "AVIF", speed=10),
    "progressive JPEG of 12 megapixels": lambda: image_files.save(TWELVE, "JPEG", progressive=True),
    "JPEG of 50 megapixels": lambda: image_files.save(FIFTY, "JPEG"),
}


@pytest.mark.parametrize("name", ENLARGED)
def test_pictures_as_phones_and_cameras_store_them(gateway, name):
    # The photograph's conversion sharpens, so that its result depends on the size a little more.
    answered = _probabilities(gateway, ENLARGED[name](), "?prepare=none")
    assert np.abs(answered - _probabilities(gateway, BOOT)).max() < 0.05


def test_a_heic_is_answered_as_the_upright_png(gateway):
    upright = image_files.heic_picture()
    for file, picture in (
        (image_files.stored("tiles.heic"), upright),
        (image_files.turned_heic(1, mirrored=True), np.rot90(upright)[:, ::-1]),
    ):
        difference = _probabilities(gateway, file) - _probabilities(gateway, image_files.save(picture))
        assert np.abs(difference).max() < 0.05


def test_too_many_pixels_are_refused_with_the_remedy(gateway):
    jpeg = image_files.with_size(image_files.save(PIXELS, "JPEG"), "JPEG", 10_000, 6_000)
    png = image_files.save(Image.new("L", (2000, 2000)))
    for files in ([("image", jpeg)], [("image", (f"{number}.png", png)) for number in range(30)]):
        answer = requests.post(gateway.url + PREDICTIONS, files=files, timeout=TIMEOUT)
        assert answer.status_code == 413
        assert answer.json()["detail"].endswith("a smaller picture, such as 1000x1000 pixels; the answer is the same")


def test_another_file_as_raw_pixels_is_named(gateway):
    pdf = b"%PDF-1.7" + bytes(776)
    for content_type in ("application/octet-stream", "image/png"):
        answer = requests.post(
            gateway.url + PREDICTIONS, data=pdf, headers={"Content-Type": content_type}, timeout=TIMEOUT
        )
        assert answer.status_code == 415
        assert answer.json()["detail"].startswith("PDF files are not supported; send ")


def test_base64_in_a_url_encoded_form(gateway, classes):
    for value in (TEXT, f"data:image/png;base64,{TEXT}"):
        assert _classes(_ok(gateway, PREDICTIONS, data={"user": "7", "image": value})) == classes[:1]
