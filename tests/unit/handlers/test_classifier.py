"""A whole handler, called as TorchServe's worker calls it, with TorchServe's own context."""

import base64
import dataclasses
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ts.context import Context, RequestProcessor

from handlers import classifier, limits, problems
from handlers.classifier import Classifier
from handlers.image_classifier import ImageClassifier
from handlers.inputs import images
from handlers.outputs import ood
from handlers.signature import (
    FILE_NAME,
    OOD_REFERENCES_FILE_NAME,
    PHOTOGRAPHS_FILE_NAME,
    STEPS_FILE_NAME,
    Input,
    Output,
    Signature,
    SignatureError,
)
from handlers.steps import StepsError
from handlers.tensor_classifier import TensorClassifier
from handlers.transport.request_patterns import Bodies, Pattern, Processors
from handlers.vector_classifier import VectorClassifier
from tests.support import image_files, npy_files
from tests.support.photographs import photograph
from tests.support.signatures import COLOR, FASHION, NUMBERS, PADDED, SIGMOID, TENSOR, VECTOR

PICTURES = np.stack([image_files.texture(seed=seed) for seed in range(20)])
PROBLEM = "application/problem+json"
# Of the weights for photographs.
PHOTOGRAPHS_SEED = 2
WITH_PHOTOGRAPHS = dataclasses.replace(
    PADDED, model="photographed", output=dataclasses.replace(PADDED.output, photograph_temperature=0.8)
)

# Its steps: the mean of each row goes to the network, and the network's scores are turned around.
WITH_STEPS = Signature(
    "stepped",
    "1.0",
    "Rows.",
    Input("image", "image", (4, 3), (4,), resize="stretch"),
    Output("softmax", ("a", "b", "c"), temperature=1.5),
    steps="Rows",
)
ROWS = """
import numpy as np

class Rows:
    def before(self, example):
        if example.max() == 0:
            raise ValueError("the picture is black")
        if example.max() == 1:
            return example.nothing
        return example.mean(1) / 255

    def after(self, outputs):
        return outputs[:2] if outputs[0] > 9 else outputs[::-1]
"""


class Network(torch.nn.Module):
    """Flattens, applies one linear layer, and a sigmoid if the signature has one."""

    def __init__(self, signature: Signature, seed: int = 1):
        super().__init__()
        torch.manual_seed(seed)
        size = int(np.prod(signature.input.network_shape))
        layers = [torch.nn.Flatten(), torch.nn.Linear(size, len(signature.output.labels))]
        if signature.output.activation == "sigmoid":
            layers.append(torch.nn.Sigmoid())
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(values)
        return scores


def expected(signature: Signature, values: np.ndarray, seed: int = 1) -> np.ndarray:
    """Probabilities computed as the signature documents: pad, scale, network, temperature, activation."""
    spec, output = signature.input, signature.output
    if spec.padding:
        values = np.pad(values, ((0, 0), (spec.padding,) * 2, (spec.padding,) * 2))
    gain, bias = (
        np.reshape(value, (-1, *[1] * (len(spec.shape) - 1))) if isinstance(value, tuple) else value
        for value in (spec.gain, spec.bias)
    )
    scaled = (values * gain + bias).astype(np.float32)
    inputs = torch.from_numpy(scaled).reshape(-1, *spec.network_shape)
    with torch.inference_mode():
        scores = Network(signature, seed)(inputs)
        return np.asarray((scores / output.temperature).softmax(1) if output.activation == "softmax" else scores)


def expected_for_photographs(signature: Signature, values: np.ndarray) -> np.ndarray:
    """Probabilities by the network for photographs and its temperature."""
    assert signature.output.photograph_temperature
    output = dataclasses.replace(signature.output, temperature=signature.output.photograph_temperature)
    return expected(dataclasses.replace(signature, output=output), values, PHOTOGRAPHS_SEED)


HANDLERS = {"image": ImageClassifier, "vector": VectorClassifier, "tensor": TensorClassifier}


class Served:
    """A handler with an archive's folder, and the code of a worker that calls it."""

    def __init__(self, signature: Signature, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(signature.to_json())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(Network(signature).eval()).save(str(folder / "model.pt"))
            if signature.ood_threshold is not None:
                np.save(folder / OOD_REFERENCES_FILE_NAME, ood.reduced(PICTURES[:10]))
            if signature.output.photograph_temperature:
                network = Network(signature, PHOTOGRAPHS_SEED).eval()
                torch.jit.script(network).save(str(folder / PHOTOGRAPHS_FILE_NAME))
        if signature.steps:
            (folder / STEPS_FILE_NAME).write_text(ROWS)
        manifest = {"model": {"serializedFile": "model.pt"}}
        self.context = Context(signature.model, str(folder), manifest, 8, None, "0.12.0")
        self.handler: Classifier = HANDLERS[signature.input.kind]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.handler.initialize(self.context)

    def batch(self, *requests):
        """Each answer's status, content type, headers and body; a request is its body or its parts, and its headers."""
        data, processors = [], []
        for body, headers in requests:
            parts = body if isinstance(body, dict) else {"body": bytearray(body)}
            described = {name: {"content-type": ""} for name in parts}
            data.append(parts)
            processors.append(RequestProcessor({**described, **headers}))
        return self._handle(data, processors)

    def batch_of_one_pattern(self, bodies, content_type, **headers):
        """Whether the fast path answered requests with the same headers, and the answers as from ``batch``."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        properties = {"body": {"content-type": ""}, "Host": "x", "explain": "False", "Content-Type": content_type}
        pattern = Pattern([], ["X-Request-Id"], "body", {**properties, **headers})
        fields = [[bytearray(b"own-%d" % place), bytearray(body)] for place, body in enumerate(bodies)]
        processors = Processors(pattern, fields)
        answers = self._handle(Bodies(pattern, fields), processors)
        if processors.headers is None:
            return False, answers
        return True, [(200, processors.headers["content-type"], processors.headers, body) for *_, body in answers]

    def _handle(self, data, processors):
        self.context.request_processor = processors
        self.context.request_ids = {place: f"id-{place}" for place in range(len(processors))}
        bodies = self.handler.handle(data, self.context)
        assert len(bodies) == len(processors)
        assert all(type(body) is bytes for body in bodies)
        return [
            (
                self.context.get_response_status(place)[0],
                self.context.get_response_content_type(place),
                self.context.get_response_headers(place),
                body,
            )
            for place, body in enumerate(bodies)
        ]

    def one(self, body, content_type="", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        (answer,) = self.batch((body, {"Host": "x", "explain": "False", "Content-Type": content_type, **headers}))
        return answer

    def json(self, body, content_type="", **headers):
        status, kind, _, answer = self.one(body, content_type, **headers)
        assert (status, kind) == (200, "application/json"), answer
        return json.loads(answer)


@pytest.fixture(autouse=True)
def _log_levels():
    """Restore the log levels, which a handler raises in its process."""
    loggers = [logging.getLogger(), logging.getLogger("ts")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = {}

    def get(signature: Signature) -> Served:
        if signature.model not in made:
            made[signature.model] = Served(signature, tmp_path_factory.mktemp(signature.model))
        return made[signature.model]

    return get


WITH_OOD = dataclasses.replace(FASHION, model="references", ood_threshold=0.25)


def values(answers):
    return np.array([list(answer["probabilities"].values()) for answer in answers])


@pytest.mark.parametrize("signature", [FASHION, PADDED], ids=lambda signature: signature.model)
def test_images_are_answered_as_the_signature_says(served, signature):
    answers = served(signature).json(PICTURES.tobytes(), "application/octet-stream")
    np.testing.assert_allclose(values(answers), expected(signature, PICTURES), atol=1e-6)
    np.testing.assert_allclose(values(answers).sum(1), 1, atol=1e-6)
    assert [answer["class"] for answer in answers] == expected(signature, PICTURES).argmax(1).tolist()


def test_vectors_are_answered_as_the_signature_says(served):
    vectors = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    answers = served(VECTOR).json(json.dumps(vectors.tolist()).encode(), "application/json")
    np.testing.assert_allclose(values(answers), expected(VECTOR, vectors), atol=1e-6)


def test_sigmoids_are_answered_with_labels(served):
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    answers = served(SIGMOID).json(vectors.tobytes(), "application/octet-stream")
    np.testing.assert_allclose(values(answers), expected(SIGMOID, vectors), atol=1e-6)
    assert "class" not in answers[0]


def test_fractions_and_pixels_mix_in_a_batch(served):
    headers = {"Host": "x", "content-type": "application/json"}
    pixels = json.dumps(PICTURES[0].tolist()).encode()
    fractions = json.dumps((PICTURES[1] / 255).tolist()).encode()
    answers = served(FASHION).batch((pixels, headers), (fractions, headers), (pixels, headers))
    np.testing.assert_allclose(
        values([json.loads(answer[3]) for answer in answers]), expected(FASHION, PICTURES[[0, 1, 0]]), atol=1e-6
    )


def test_one_bad_request_does_not_affect_the_others(served):
    http = {"Host": "x", "explain": "False"}
    requests = []
    for place, picture in enumerate(PICTURES[:15]):
        if place % 2:
            requests.append((image_files.save(picture), {**http, "Content-Type": "image/png"}))
        else:
            requests.append((picture.tobytes(), {**http, "content-type": "application/octet-stream"}))
    bad = [
        (b"", http),
        (b"\x89PNG\r\n\x1a\n", {**http, "content-type": "image/png"}),
        (b"[[NaN]]", {**http, "content-type": "application/json"}),
        (bytes(700), {**http, "content-type": "application/octet-stream"}),
        (PICTURES[0].tobytes(), {**http, "X-Query": "top_k=0"}),
        (PICTURES[0].tobytes(), {**http, "Accept": "text/html"}),
        (b"<a/>", {**http, "content-type": "text/xml"}),
        (PICTURES[0].tobytes(), {**http, "Inference-Header-Content-Length": "x"}),
        (PICTURES.tobytes(), {**http, "explain": "True"}),
    ]
    for place, request in enumerate(bad):
        answers = served(FASHION).batch(*requests[:place], request, *requests[place:])
        status, kind, _, body = answers.pop(place)
        assert 400 <= status < 500
        assert kind == PROBLEM
        problem = json.loads(body)
        assert problem["status"] == status
        assert problem["instance"] == f"urn:uuid:id-{place}"
        assert {answer[0] for answer in answers} == {200}
        probabilities = values([json.loads(answer[3]) for answer in answers])
        np.testing.assert_allclose(probabilities, expected(FASHION, PICTURES[:15]), atol=1e-6)


def test_a_batch_that_takes_too_long_to_decode_refuses_its_last_requests(served, monkeypatch):
    monkeypatch.setattr(classifier, "_DECODING_S", 0)
    headers = {"Host": "x", "explain": "False", "content-type": "image/png"}
    answers = served(FASHION).batch(*[(image_files.save(picture), headers) for picture in PICTURES[:3]])
    assert [status for status, *_ in answers] == [200, 503, 503]
    assert b"try again" in answers[1][-1]


def test_a_batch_may_hold_only_bad_requests(served):
    answers = served(FASHION).batch((b"", {"host": "x"}), (b"x", {"host": "x"}))
    assert [answer[0] for answer in answers] == [400, 415]


def test_answers_may_be_arrays(served):
    body, octets = PICTURES[:3].tobytes(), "application/octet-stream"
    for accept in ("application/x-npy", octets):
        status, kind, _, answer = served(FASHION).one(body, octets, Accept=accept)
        assert (status, kind) == (200, accept)
        array = np.load(io.BytesIO(answer)) if accept != octets else np.frombuffer(answer, "<f4").reshape(3, 10)
        np.testing.assert_allclose(array, expected(FASHION, PICTURES[:3]), atol=1e-6)


def test_top_k_and_picture(served):
    photograph = image_files.save(255 - np.kron(PICTURES[0], np.ones((5, 5), np.uint8)))
    answer = served(FASHION).json(photograph, "image/png", X_Query="top_k=3&picture=true")
    assert len(answer["probabilities"]) == 3
    picture = base64.b64decode(answer["picture"])
    again = served(FASHION).json(picture, "image/png", X_Query="top_k=3")
    assert again["probabilities"] == answer["probabilities"]


def test_a_vector_model_has_no_picture(served):
    status, *_ = served(VECTOR).one(b"[1, 2, 3, 4]", "application/json", X_Query="picture=1")
    assert status == 422


def test_kserve_v1(served):
    body = json.dumps({"instances": PICTURES[:2].tolist()}).encode()
    answer = served(FASHION).json(body, "application/json")
    assert list(answer) == ["predictions"]
    np.testing.assert_allclose(values(answer["predictions"]), expected(FASHION, PICTURES[:2]), atol=1e-6)


def test_binary_tensors_of_the_open_inference_protocol(served):
    tensor = {"name": "image", "shape": [2, 28, 28], "datatype": "UINT8", "parameters": {"binary_data_size": 1568}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = header + PICTURES[:2].tobytes()
    status, kind, headers, answer = served(FASHION).one(
        body, "application/octet-stream", Inference_Header_Content_Length=str(len(header))
    )
    assert (status, kind) == (200, "application/octet-stream")
    length = int(headers["Inference-Header-Content-Length"])
    assert json.loads(answer[:length])["outputs"][0]["shape"] == [2, 10]
    array = np.frombuffer(answer[length : length + 80], "<f4").reshape(2, 10)
    np.testing.assert_allclose(array, expected(FASHION, PICTURES[:2]), atol=1e-6)


def test_explanations(served):
    answer = served(PADDED).json(
        PICTURES[0].tobytes(), "application/octet-stream", explain="True", X_Query="target=Coat"
    )
    assert answer["target"] == 4
    assert np.array(answer["attributions"]).shape == (28, 28)
    many = served(PADDED).json(PICTURES[:2].tobytes(), "application/octet-stream", explain="True")
    assert [one["target"] for one in many] == [one["class"] for one in many]
    wrapped = served(VECTOR).json(b'{"instances": [[1, 2, 3, 4]]}', "application/json", explain="True")
    assert np.array(wrapped["explanations"][0]["attributions"]).shape == (4,)


def test_a_task_has_its_own_outputs_of_the_open_inference_protocol(served):
    tensor = {"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": PICTURES[0].ravel().tolist()}
    for explain, name, unknown in (("False", "class", "target"), ("True", "target", "class")):
        for requested, status in ((name, 200), (unknown, 422)):
            body = json.dumps({"inputs": [tensor], "outputs": [{"name": requested}]}).encode()
            answered, *_, answer = served(FASHION).one(body, "application/json", explain=explain)
            assert answered == status
            if status == 200:
                assert [output["name"] for output in json.loads(answer)["outputs"]] == [requested]
            else:
                assert name in json.loads(answer)["detail"]


def test_explanations_as_pictures(served):
    body, octets = PICTURES[0].tobytes(), "application/octet-stream"
    status, kind, _, answer = served(FASHION).one(body, octets, explain="True", Accept="image/png")
    assert (status, kind, answer[:4]) == (200, "image/png", b"\x89PNG")
    for signature, sent, accept in [
        (FASHION, PICTURES[:2].tobytes(), "image/png"),
        (FASHION, body, "application/x-npy"),
        (VECTOR, bytes(16), "image/png"),
    ]:
        assert served(signature).one(sent, octets, explain="True", Accept=accept)[0] == 406


def test_too_many_explanations_are_refused(served):
    body = np.zeros((limits.EXPLAINED + 1, 784), np.uint8).tobytes()
    assert served(FASHION).one(body, "application/octet-stream", explain="True")[0] == 413


def test_a_description_holds_metadata_and_signature(served):
    (answer,) = served(FASHION).batch(({}, {"describe": "True"}))
    assert answer[:2] == (200, "application/json")
    described = json.loads(answer[3])
    assert described["name"] == "fashion"
    assert described["inputs"][0]["shape"] == [-1, 28, 28]
    assert described["signature"] == json.loads(FASHION.to_json())


def test_more_images_than_a_chunk_keep_their_order(served, monkeypatch):
    here = served(FASHION)
    monkeypatch.setattr(here.handler._inputs, "chunk", 7)
    answers = here.json(PICTURES.tobytes(), "application/octet-stream")
    np.testing.assert_allclose(values(answers), expected(FASHION, PICTURES), atol=1e-6)


def test_the_rows_of_a_batch_that_overflow_are_refused_alone(served):
    http = {"Host": "x", "Content-Type": "application/octet-stream"}
    steep = dataclasses.replace(VECTOR, model="steep", input=dataclasses.replace(VECTOR.input, gain=10.0))
    huge = np.full(4, 3e38, "<f4").tobytes()
    fine = np.ones(4, "<f4").tobytes()
    answers = served(steep).batch((fine, http), (huge, http), (fine, http))
    assert [answer[0] for answer in answers] == [200, 422, 200]
    np.testing.assert_allclose(
        values([json.loads(answer[3]) for answer in answers[::2]]), expected(steep, np.ones((2, 4))), atol=1e-6
    )


# --- requests of one pattern ---

RAW = [picture.tobytes() for picture in PICTURES]
PNG = [image_files.save(picture) for picture in PICTURES]
NPY = [npy_files.save(picture) for picture in PICTURES]
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("bodies", "content_type", "headers", "fast"),
    [
        pytest.param(RAW, OCTETS, {}, True, id="raw"),
        pytest.param(RAW[:1], OCTETS, {}, True, id="one"),
        pytest.param(PNG, "image/png", {}, True, id="PNG"),
        pytest.param([b"\xff" + RAW[0][1:], RAW[1]], OCTETS, {}, True, id="the first byte of a JPEG"),
        pytest.param([*RAW[:2], b"\xff\xd8\xff" + RAW[0][3:]], OCTETS, {}, False, id="pixels that look like a JPEG"),
        pytest.param([*RAW[:2], b"\x93NUMPY" + RAW[0][6:]], OCTETS, {}, False, id="pixels that look like an array"),
        pytest.param([RAW[0], RAW[1][:-1], RAW[2]], OCTETS, {}, False, id="a missing byte"),
        pytest.param([RAW[0], RAW[1] * 2, b""], OCTETS, {}, False, id="two images, and an empty body"),
        pytest.param([PNG[0], PNG[1]], OCTETS, {}, False, id="files without a type"),
        pytest.param([PNG[0], PNG[1][:-20], PNG[2]], "image/png", {}, False, id="a damaged PNG"),
        pytest.param([PNG[0], image_files.save(PICTURES[0], "JPEG")], "image/png", {}, False, id="a JPEG among PNGs"),
        pytest.param(NPY, "application/x-npy", {}, True, id="arrays"),
        pytest.param([NPY[0], NPY[1][:-1], NPY[2]], "application/x-npy", {}, False, id="an array without its end"),
        pytest.param([NPY[0], b"\x93NUM", b""], "application/x-npy", {}, False, id="too little for an array"),
        pytest.param([NPY[0], RAW[1]], "application/x-npy", {}, False, id="an array and raw pixels"),
        pytest.param(RAW, "application/x-npy", {}, False, id="raw pixels called arrays"),
        pytest.param(
            [NPY[0], NPY[1].replace(b"'|u1'", b"'|i1'")], "application/x-npy", {}, False, id="arrays of two datatypes"
        ),
        pytest.param(
            [npy_files.save(picture.astype(np.float32)) for picture in PICTURES / 255],
            *("application/x-npy", {}, False),
            id="arrays of fractions",
        ),
        pytest.param(
            [npy_files.save(np.asfortranarray(picture)) for picture in PICTURES],
            *("application/x-npy", {}, False),
            id="arrays by columns",
        ),
        pytest.param([npy_files.save(PICTURES[:2])] * 2, "application/x-npy", {}, False, id="arrays of two images"),
        pytest.param([b"[0]", b"{"], "application/json", {}, False, id="JSON"),
        pytest.param(RAW, OCTETS, {"X_Query": "top_k=2"}, False, id="options"),
        pytest.param(RAW, OCTETS, {"X_Query": "top_k=x"}, False, id="bad options"),
        pytest.param(RAW, OCTETS, {"Accept": "application/x-npy"}, False, id="another format"),
        pytest.param(RAW, OCTETS, {"Accept": "text/html"}, False, id="an unavailable format"),
        pytest.param(RAW, OCTETS, {"explain": "True"}, False, id="explanations"),
        pytest.param(RAW, OCTETS, {"describe": "True"}, False, id="descriptions"),
        pytest.param(RAW, OCTETS, {"Inference_Header_Content_Length": "9"}, False, id="the header of a protocol"),
        pytest.param(PNG, OCTETS, {"X_Content_Type": "image/png"}, True, id="a content type from the gateway"),
    ],
)
@pytest.mark.parametrize("signature", [FASHION, PADDED], ids=lambda signature: signature.model)
def test_requests_of_one_pattern_are_answered_as_one_by_one(served, signature, bodies, content_type, headers, fast):
    one_by_one = [
        served(signature).one(body, content_type, **headers, X_Request_Id=f"own-{place}")
        for place, body in enumerate(bodies)
    ]
    is_fast, together = served(signature).batch_of_one_pattern(bodies, content_type, **headers)
    assert is_fast == fast
    assert [answer[:3] for answer in together] == [answer[:3] for answer in one_by_one]
    for answer, single in zip(together, one_by_one, strict=True):
        # The last digit of a probability may depend on the batch's size.
        assert text_and_numbers(answer[3])[0] == text_and_numbers(single[3])[0]
        np.testing.assert_allclose(text_and_numbers(answer[3])[1], text_and_numbers(single[3])[1], atol=1e-6)


def text_and_numbers(body):
    """The text of a body without its numbers, and the numbers."""
    if body.startswith(b"\x93NUMPY"):
        return "", np.load(io.BytesIO(body)).ravel().tolist()
    number = r"-?\d+(?:\.\d+)?(?:[Ee]-?\d+)?"
    return re.sub(number, "", body.decode()), list(map(float, re.findall(number, body.decode())))


def test_vectors_of_one_pattern_are_answered(served):
    rows = np.arange(8, dtype="<f4").reshape(2, 4)
    _, answers = served(VECTOR).batch_of_one_pattern([row.tobytes() for row in rows], OCTETS)
    np.testing.assert_allclose(values([json.loads(answer[3]) for answer in answers]), expected(VECTOR, rows), atol=1e-6)


def test_pictures_of_one_pattern_that_overflow_are_refused_alone(served):
    steep = dataclasses.replace(FASHION, model="steep-pictures", input=dataclasses.replace(FASHION.input, gain=1e38))
    is_fast, answers = served(steep).batch_of_one_pattern([bytes(784), bytes([255] * 784), bytes(784)], OCTETS)
    assert not is_fast
    assert [answer[0] for answer in answers] == [200, 422, 200]


def test_requests_of_one_pattern_get_the_error_of_a_failing_network(served, monkeypatch, caplog):
    def fail(_):
        raise RuntimeError("a failure")

    monkeypatch.setattr(served(FASHION).handler, "_network", fail)
    with caplog.at_level(logging.ERROR):
        is_fast, answers = served(FASHION).batch_of_one_pattern(RAW[:2], OCTETS)
    assert not is_fast
    assert [answer[0] for answer in answers] == [500, 500]
    assert caplog.text.count("RuntimeError: a failure") == 2


# --- gRPC, where an answer in the wrong format costs TorchServe a worker ---


def oip_answer(served, body):
    (answer,) = served(FASHION).batch(({"body": body}, {"body": {"content-type": "application/json"}}))
    response = json.loads(answer[3])
    assert {"id", "model_name", "model_version", "outputs"} <= set(response)
    for name in ("id", "model_name", "model_version"):
        assert type(response[name]) is str
    for output in response["outputs"]:
        assert type(output["name"]) is type(output["datatype"]) is str
        assert np.prod(output["shape"]) == len(output["data"])
    return response


def test_an_answer_over_grpc_has_what_torchserve_reads(served):
    tensor = {"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": PICTURES[0].ravel().tolist()}
    response = oip_answer(served, json.dumps({"id": "", "model_name": "fashion", "inputs": [tensor]}).encode())
    assert [output["name"] for output in response["outputs"]] == ["probabilities", "class", "label"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"",
        b"[1]",
        b"nonsense",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": []}]}',
        b'{"inputs": [{"name": "image", "shape": [1, 784], "datatype": "FP8"}]}',
        b'{"id": 5, "inputs": 7}',
        b'{"instances": [[1]]}',
        json.dumps(PICTURES[0].tolist()).encode(),
    ],
)
def test_a_refusal_over_grpc_has_what_torchserve_reads(served, body):
    (error,) = oip_answer(served, body)["outputs"]
    assert error["name"] == "error"
    assert error["data"][0].startswith("4")


def test_answers_to_torchserves_own_grpc_service_end_the_stream(served):
    for data in ({"data": PICTURES[0].tobytes()}, {"data": b"?"}, {}, {"a": image_files.save(PICTURES[0]), "b": b""}):
        ((_, _, headers, body),) = served(FASHION).batch((data, {}))
        assert headers["ts_stream_next"] == "false"
        assert json.loads(body)


def test_one_picture_without_options_is_answered_in_each_format(served):
    body, octets = PICTURES[0].tobytes(), "application/octet-stream"
    plain = served(FASHION).json(body, octets)
    status, kind, _, answer = served(FASHION).one(body, octets, Accept=octets)
    assert (status, kind) == (200, octets)
    np.testing.assert_allclose(np.frombuffer(answer, "<f4"), list(plain["probabilities"].values()), atol=1e-7)
    explained = served(FASHION).json(body, octets, explain="True")
    assert explained["label"] == plain["label"]
    assert np.shape(explained["attributions"]) == (28, 28)


# --- errors of the service ---


def test_an_error_of_the_service_is_a_500_for_its_request_only(served, monkeypatch, caplog):
    handler = served(FASHION).handler
    encode = handler._encoder.json

    def fail(probabilities, *more):
        if len(probabilities) == 2:
            raise RuntimeError("a bug")
        return encode(probabilities, *more)

    monkeypatch.setattr(handler._encoder, "json", fail)
    http = {"Host": "x", "Content-Type": "application/octet-stream"}
    with caplog.at_level(logging.ERROR):
        answers = served(FASHION).batch((PICTURES[0].tobytes(), http), (PICTURES[:2].tobytes(), http))
    assert [answer[0] for answer in answers] == [200, 500]
    assert json.loads(answers[1][3])["type"] == problems.Internal.type
    assert "a bug" in caplog.text
    assert "a bug" not in answers[1][3].decode()


@pytest.mark.parametrize(
    "message", ["could not create a primitive", "can't allocate memory: you tried to allocate 9 bytes"]
)
def test_when_the_network_runs_out_of_memory_every_request_is_answered(served, monkeypatch, caplog, message):
    handler = served(FASHION).handler

    def fail(_):
        raise RuntimeError(message)

    monkeypatch.setattr(handler, "_network", fail)
    http = {"Host": "x", "Content-Type": "application/octet-stream"}
    with caplog.at_level(logging.ERROR):
        answers = served(FASHION).batch((PICTURES[0].tobytes(), http), (b"", http))
    assert [answer[0] for answer in answers] == [500, 400]
    assert "Out of memory while answering a request" in caplog.text


@pytest.fixture
def failing_network(served, monkeypatch):
    """Returns a function that has the network of FASHION raise an error, and returns its ``Served``."""

    def fail_with(error):
        def fail(_):
            raise error

        monkeypatch.setattr(served(FASHION).handler, "_network", fail)
        return served(FASHION)

    return fail_with


def in_torchscript(message):
    """A RuntimeError as TorchScript raises it instead of any other error."""
    return RuntimeError(
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n"
        '  File "network.py", line 5, in forward\n'
        "    return self.layers(values)\n"
        "           ~~~~~~~~~~~ <--- HERE\n"
        f"RuntimeError: {message}\n"
    )


NO_GPU_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB"
LOST = "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"


def test_torchscript_raises_errors_as_these_tests_assume():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.script(Network(FASHION))
    with pytest.raises(RuntimeError) as caught:
        network(torch.zeros(1, 3))
    assert type(caught.value) is RuntimeError
    assert classifier._message(caught.value).startswith("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError(NO_GPU_MEMORY), in_torchscript(NO_GPU_MEMORY)],
    ids=["outside of TorchScript", "in TorchScript"],
)
def test_a_gpu_out_of_memory_is_a_503_and_the_worker_continues(failing_network, monkeypatch, caplog, error):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    with caplog.at_level(logging.ERROR):
        status, kind, _, body = failing_network(error).one(PICTURES[0].tobytes(), OCTETS)
    assert (status, kind) == (503, PROBLEM)
    assert json.loads(body)["type"] == problems.Unavailable.type
    assert emptied
    assert "Out of GPU memory while answering a request" in caplog.text


@pytest.mark.parametrize(
    "error",
    [torch.AcceleratorError("no kernel image"), RuntimeError(LOST), in_torchscript(LOST)],
    ids=["AcceleratorError", "RuntimeError", "in TorchScript"],
)
def test_a_lost_gpu_ends_the_process(failing_network, monkeypatch, caplog, error):
    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    with pytest.raises(SystemExit, match="1"):
        failing_network(error).one(PICTURES[0].tobytes(), OCTETS)
    assert "CUDA failed; ending this worker" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error: is part of a caller's label"),
        RuntimeError("the label 'CUDA error: x' is unknown"),
        in_torchscript("shapes [CUDA error:]"),
    ],
    ids=["another type", "within the text", "within TorchScript's text"],
)
def test_an_error_that_mentions_cuda_does_not_end_the_process(failing_network, error):
    assert failing_network(error).one(PICTURES[0].tobytes(), OCTETS)[0] == 500


def test_a_lost_gpu_ends_the_process_with_a_failure_and_a_log_line():
    program = "from handlers import classifier; classifier._problem(RuntimeError('CUDA error: no kernel image'))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 1
    assert "CUDA failed" in process.stderr


def test_a_signature_of_another_kind_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_text(VECTOR.to_json())
    context = Context("x", str(tmp_path), {"model": {"serializedFile": "model.pt"}}, 1, None, "0.12.0")
    with pytest.raises(SignatureError, match=r"input\.kind must be image for this handler, got vector"):
        ImageClassifier().initialize(context)


def test_torchserve_gets_no_metric_of_a_batchs_time():
    added = []
    add_time = classifier._without_prediction_time(lambda name, *values, **rest: added.append((name, values, rest)))
    add_time("PredictionTime", 1.5)
    add_time("Own", 2.5, idx=0)
    assert added == [("Own", (2.5,), {"idx": 0})]


def test_a_loaded_handler_logs_only_warnings(tmp_path):
    Served(VECTOR, tmp_path)
    assert logging.getLogger().level == logging.getLogger("ts").level == logging.WARNING


# --- Photographs ---


def photograph_file(color=(40, 60, 150)):
    return image_files.save(photograph(color))


def converted(file):
    return images.decode(file, (28, 28))[np.newaxis]


def probabilities_of(answer):
    return list(answer["probabilities"].values())


def test_a_photograph_is_answered_by_the_network_for_photographs(served):
    file, here = photograph_file(), served(WITH_PHOTOGRAPHS)
    answer = probabilities_of(here.json(file, "image/png"))
    np.testing.assert_allclose(answer, expected_for_photographs(WITH_PHOTOGRAPHS, converted(file))[0], atol=1e-5)
    assert not np.allclose(answer, expected(WITH_PHOTOGRAPHS, converted(file))[0], atol=1e-3)


@pytest.mark.parametrize("prepare", ["auto", "none"])
def test_other_pictures_are_answered_by_the_usual_network(served, prepare):
    here = served(WITH_PHOTOGRAPHS)
    plain = image_files.save(np.pad(PICTURES[0], 20))
    pixels = images.decode(plain, (28, 28), prepare)[np.newaxis]
    answer = here.json(plain, "image/png", x_query=f"prepare={prepare}")
    np.testing.assert_allclose(probabilities_of(answer), expected(WITH_PHOTOGRAPHS, pixels)[0], atol=1e-5)
    raw = here.json(PICTURES[0].tobytes(), "application/octet-stream")
    np.testing.assert_allclose(probabilities_of(raw), expected(WITH_PHOTOGRAPHS, PICTURES[:1])[0], atol=1e-5)


def test_without_preparation_a_photograph_is_answered_by_the_usual_network(served):
    file, here = photograph_file(), served(WITH_PHOTOGRAPHS)
    pixels = images.decode(file, (28, 28), "none")[np.newaxis]
    answer = here.json(file, "image/png", x_query="prepare=none")
    np.testing.assert_allclose(probabilities_of(answer), expected(WITH_PHOTOGRAPHS, pixels)[0], atol=1e-5)


def test_photographs_and_pixels_in_one_request_and_one_batch_keep_their_own_networks(served):
    here, files = served(WITH_PHOTOGRAPHS), [photograph_file(), photograph_file((200, 40, 60))]
    instances = [
        {"b64": base64.b64encode(files[0]).decode()},
        PICTURES[3].tolist(),
        {"b64": base64.b64encode(files[1]).decode()},
    ]
    headers = {"Host": "x", "explain": "False"}
    several, lone, pixels = here.batch(
        (json.dumps({"instances": instances}).encode(), {**headers, "Content-Type": "application/json"}),
        (files[1], {**headers, "Content-Type": "image/png"}),
        (PICTURES[3].tobytes(), {**headers, "Content-Type": "application/octet-stream"}),
    )
    first, third = (expected_for_photographs(WITH_PHOTOGRAPHS, converted(file))[0] for file in files)
    second = expected(WITH_PHOTOGRAPHS, PICTURES[3:4])[0]
    for answer, right in zip(json.loads(several[3])["predictions"], (first, second, third), strict=True):
        np.testing.assert_allclose(probabilities_of(answer), right, atol=1e-5)
    np.testing.assert_allclose(probabilities_of(json.loads(lone[3])), third, atol=1e-5)
    np.testing.assert_allclose(probabilities_of(json.loads(pixels[3])), second, atol=1e-5)


def test_the_outline_of_a_photograph_is_shown_with_its_picture(served):
    here, file = served(WITH_PHOTOGRAPHS), photograph_file()
    assert "outline" not in here.json(file, "image/png")
    answer = here.json(file, "image/png", x_query="picture=true")
    with Image.open(io.BytesIO(base64.b64decode(answer["outline"]))) as outline:
        assert (outline.mode, outline.size) == ("LA", photograph().size)
        inside = np.asarray(outline)[..., 1] > 127
    # Of the item at columns 40 to 139 and rows 50 to 199.
    assert inside[60:190, 50:130].mean() > 0.95
    assert inside[:40].mean() < 0.05
    assert "outline" not in here.json(image_files.save(np.pad(PICTURES[0], 20)), "image/png", x_query="picture=true")


def test_an_explanation_of_a_photograph_is_that_of_its_own_network(served):
    file, here = photograph_file(), served(WITH_PHOTOGRAPHS)
    answer = here.json(file, "image/png", explain="True")
    best = expected_for_photographs(WITH_PHOTOGRAPHS, converted(file))[0].argmax()
    assert answer["target"] == best
    # Of a linear network, the attributions are its weights times the pixels' difference from black.
    weights = Network(WITH_PHOTOGRAPHS, PHOTOGRAPHS_SEED).state_dict()["layers.1.weight"][best].numpy()
    values = converted(file)[0] * WITH_PHOTOGRAPHS.input.gain * weights.reshape(32, 32)[2:-2, 2:-2]
    np.testing.assert_allclose(answer["attributions"], values, atol=1e-3)


def test_a_missing_network_for_photographs_stops_the_worker(tmp_path):
    here = Served(WITH_PHOTOGRAPHS, tmp_path)
    (tmp_path / PHOTOGRAPHS_FILE_NAME).unlink()
    with pytest.raises(ValueError, match=PHOTOGRAPHS_FILE_NAME):
        here.handler.initialize(here.context)


# --- The out-of-distribution score ---


def scores(*pictures):
    return ood.Detector(ood.reduced(PICTURES[:10])).scores(np.stack(pictures))


def test_converted_images_have_a_score_and_raw_pixels_only_on_request(served):
    here = served(WITH_OOD)
    file = image_files.save(np.pad(PICTURES[0], 20))
    answer = here.json(file, "image/png")
    assert answer["ood"] == pytest.approx(scores(converted(file)[0])[0], abs=1e-6)
    assert answer["ood_threshold"] == 0.25
    for body, kind in (
        (PICTURES[12].tobytes(), "application/octet-stream"),
        (image_files.save(PICTURES[12]), "image/png"),
    ):
        assert "ood" not in here.json(body, kind)
        requested = here.json(body, kind, x_query="ood=true")
        assert requested["ood"] == pytest.approx(scores(PICTURES[12])[0], abs=1e-6)
    assert "ood" not in here.json(file, "image/png", x_query="ood=false")


def test_each_of_several_examples_has_its_own_score_also_beside_other_options(served):
    body = PICTURES[8:13].tobytes()
    answers = served(WITH_OOD).json(body, "application/octet-stream", x_query="ood=true&picture=true&top_k=2")
    np.testing.assert_allclose([answer["ood"] for answer in answers], scores(*PICTURES[8:13]), atol=1e-6)
    assert all(len(answer["probabilities"]) == 2 and answer["picture"] for answer in answers)


@pytest.mark.parametrize("signature", [FASHION, VECTOR], ids=lambda signature: signature.model)
def test_a_version_without_references_refuses_the_option(served, signature):
    body = np.zeros((1, *signature.input.shape), np.uint8 if signature.input.kind == "image" else "<f4").tobytes()
    status, *_, answer = served(signature).one(body, "application/octet-stream", x_query="ood=true")
    assert status == 422
    assert "trained with this release" in json.loads(answer)["detail"]


@pytest.mark.parametrize("binary", [False, True])
def test_the_open_inference_protocol_has_the_score_if_it_is_named(served, binary):
    tensor = {"name": "image", "shape": [2, 28, 28], "datatype": "UINT8", "data": PICTURES[10:12].ravel().tolist()}
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in ("ood", "class")]
    body = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    status, _, headers, answer = served(WITH_OOD).one(body, "application/json")
    assert status == 200
    length = int(headers["Inference-Header-Content-Length"]) if binary else len(answer)
    first, second = json.loads(answer[:length])["outputs"]
    assert (first["name"], first["datatype"], first["shape"], second["name"]) == ("ood", "FP32", [2], "class")
    returned = np.frombuffer(answer[length : length + 8], "<f4") if binary else first["data"]
    np.testing.assert_allclose(returned, scores(*PICTURES[10:12]), atol=1e-6)


def test_the_open_inference_protocol_lists_the_score_and_leaves_it_out_by_default(served):
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": PICTURES[0].ravel().tolist()}
    answer = served(WITH_OOD).json(json.dumps({"inputs": [tensor]}).encode(), "application/json")
    assert [output["name"] for output in answer["outputs"]] == ["probabilities", "class", "label"]
    described = served(WITH_OOD).json(b"", describe="True")
    assert {"name": "ood", "datatype": "FP32", "shape": [-1]} in described["outputs"]
    assert "ood" not in json.dumps(served(FASHION).json(b"", describe="True")["outputs"])


COLORS = np.random.default_rng(4).integers(0, 256, (4, 3, 8, 12), np.uint8)


def png_of(pixels):
    """A PNG file of a color picture, uint8 [3, H, W]."""
    return image_files.save(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (COLORS.tobytes(), "application/octet-stream"),
        (json.dumps(COLORS.tolist()).encode(), "application/json"),
        (json.dumps(COLORS.transpose(0, 2, 3, 1).tolist()).encode(), "application/json"),
        (json.dumps([base64.b64encode(png_of(each)).decode() for each in COLORS]).encode(), "application/json"),
    ],
    ids=["raw", "channels first", "channels last", "files"],
)
def test_color_pictures_are_scaled_by_channel(served, body, content_type):
    answers = served(COLOR).json(body, content_type)
    np.testing.assert_allclose(values(answers), expected(COLOR, COLORS), atol=1e-6)


def test_one_color_picture_shows_itself_and_its_explanation(served):
    here = served(COLOR)
    answer = here.json(png_of(COLORS[0]), "image/png", X_Query="picture=true")
    np.testing.assert_allclose(values([answer]), expected(COLOR, COLORS[:1]), atol=1e-6)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["picture"]))))
    np.testing.assert_array_equal(shown, COLORS[0].transpose(1, 2, 0))
    explained = here.json(png_of(COLORS[0]), "image/png", explain="True")
    # Of a linear network, the attributions are its weights times the scaled difference from black.
    weights = Network(COLOR).state_dict()["layers.1.weight"][explained["target"]].numpy().reshape(3, 8, 12)
    gains = np.reshape(COLOR.input.gain, (3, 1, 1))
    np.testing.assert_allclose(explained["attributions"], COLORS[0] * gains * weights, atol=1e-3)
    status, kind, _, heat_map = here.one(png_of(COLORS[0]), "image/png", explain="True", Accept="image/png")
    assert (status, kind) == (200, "image/png")
    assert Image.open(io.BytesIO(heat_map)).size == (12 * 23, 8 * 23)


@pytest.mark.parametrize("count", [1, 3])
def test_color_pictures_of_one_pattern_are_answered(served, count):
    bodies = [each.tobytes() for each in COLORS[:count]]
    fast, answers = served(COLOR).batch_of_one_pattern(bodies, "application/octet-stream")
    assert fast
    np.testing.assert_allclose(
        values([json.loads(each[3]) for each in answers]), expected(COLOR, COLORS[:count]), atol=1e-6
    )
    fast, answers = served(COLOR).batch_of_one_pattern([png_of(each) for each in COLORS[:count]], "image/png")
    assert not fast
    np.testing.assert_allclose(
        values([json.loads(each[3]) for each in answers]), expected(COLOR, COLORS[:count]), atol=1e-6
    )


def test_a_model_whose_pictures_are_only_resized_cannot_convert_photographs(served):
    status, _, _, body = served(COLOR).one(png_of(COLORS[0]), "image/png", X_Query="prepare=photo")
    assert status == 422
    assert "this model's are only resized" in json.loads(body)["detail"]


def test_the_values_of_a_request_have_a_limit_together(served, monkeypatch):
    monkeypatch.setattr(limits, "VALUES", 3 * COLORS[0].size)
    assert served(COLOR).one(COLORS[:3].tobytes(), "application/octet-stream")[0] == 200
    status, _, _, body = served(COLOR).one(COLORS.tobytes(), "application/octet-stream")
    assert (status, json.loads(body)["detail"]) == (413, "too many examples in one request (4, limit 3)")


TABLE = np.array([[1, -2, 3, 4], [500, 6, -7, 8]], np.float32)


def test_plain_numbers_are_the_answer_in_every_form(served):
    here, right = served(NUMBERS), expected(NUMBERS, TABLE)
    answer = here.json(json.dumps(TABLE[1].tolist()).encode(), "application/json")
    assert list(answer) == ["values"]
    np.testing.assert_allclose(answer["values"], right[1], rtol=1e-5)
    answers = here.json(TABLE.tobytes(), "application/octet-stream")
    np.testing.assert_allclose([each["values"] for each in answers], right, rtol=1e-5)
    wrapped = here.json(json.dumps({"instances": TABLE.tolist()}).encode(), "application/json")
    assert wrapped == {"predictions": answers}
    *_, body = here.one(TABLE.tobytes(), "application/octet-stream", Accept="application/x-npy")
    np.testing.assert_allclose(np.load(io.BytesIO(body)), right, rtol=1e-5)


def test_the_open_inference_protocol_has_plain_numbers_as_its_only_output(served):
    here = served(NUMBERS)
    assert here.json(b"", describe="True")["outputs"] == [{"name": "values", "datatype": "FP32", "shape": [-1, 2]}]
    tensor = {"name": "features", "shape": [2, 4], "datatype": "FP32", "data": TABLE.ravel().tolist()}
    (output,) = here.json(json.dumps({"inputs": [tensor]}).encode(), "application/json")["outputs"]
    assert (output["name"], output["shape"]) == ("values", [2, 2])
    np.testing.assert_allclose(np.reshape(output["data"], (2, 2)), expected(NUMBERS, TABLE), rtol=1e-5)
    requested = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    status, *_, body = here.one(requested, "application/json")
    assert (status, json.loads(body)["detail"]) == (422, "unknown output 'probabilities'; the answer has values")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X_Query": "top_k=1"}, "top_k is for models that classify; this model returns numbers"),
        ({"explain": "True"}, "explanations are for models that classify; this model returns numbers"),
    ],
    ids=["top_k", "explanation"],
)
def test_what_only_models_that_classify_have_is_refused_for_numbers(served, headers, message):
    status, *_, body = served(NUMBERS).one(TABLE[:1].tobytes(), "application/octet-stream", **headers)
    assert (status, json.loads(body)["detail"]) == (422, message)


ARRAYS = np.random.default_rng(9).normal(0, 1, (3, 2, 1, 3, 2)).astype(np.float32)


def tensor_of(values, flat):
    data = values.ravel().tolist() if flat else values.tolist()
    tensor = {"name": "features", "shape": list(values.shape), "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (ARRAYS.tobytes(), "application/octet-stream"),
        (npy_files.save(ARRAYS.astype(np.float64)), "application/x-npy"),
        (json.dumps(ARRAYS.tolist()).encode(), "application/json"),
        (json.dumps(ARRAYS.reshape(3, -1).tolist()).encode(), "application/json"),
    ],
    ids=["raw", "npy", "json", "rows"],
)
def test_arrays_of_any_shape_are_scaled_by_their_first_axis(served, body, content_type):
    answers = served(TENSOR).json(body, content_type)
    np.testing.assert_allclose(values(answers), expected(TENSOR, ARRAYS), atol=1e-6)
    single = served(TENSOR).json(npy_files.save(ARRAYS[1]), "application/x-npy")
    np.testing.assert_allclose(values([single]), expected(TENSOR, ARRAYS[1:2]), atol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_arrays_of_any_shape_are_tensors_of_the_open_inference_protocol(served, flat):
    here = served(TENSOR)
    assert here.json(b"", describe="True")["inputs"][0]["shape"] == [-1, 2, 1, 3, 2]
    outputs = here.json(tensor_of(ARRAYS, flat), "application/json")["outputs"]
    np.testing.assert_allclose(np.reshape(outputs[0]["data"], (3, 2)), expected(TENSOR, ARRAYS), atol=1e-6)


def test_an_array_of_another_shape_is_refused_with_the_shapes_that_fit(served):
    status, *_, body = served(TENSOR).one(npy_files.save(ARRAYS[0, 0]), "application/x-npy")
    assert status == 422
    assert "shape 1x3x2 does not fit this model; send 2x1x3x2, Nx2x1x3x2 or Nx12" in json.loads(body)["detail"]


def test_fewer_large_examples_are_explained(served, monkeypatch):
    here = served(COLOR)
    monkeypatch.setattr(here.handler._inputs, "chunk", 32)
    status, *_, body = here.one(COLORS[:3].tobytes(), "application/octet-stream", explain="True")
    assert (status, json.loads(body)["detail"]) == (413, "explanations take up to 2 examples per request, got 3")
    assert len(here.json(COLORS[:2].tobytes(), "application/octet-stream", explain="True")) == 2


def rows(pictures):
    """The probabilities of pictures by ``WITH_STEPS``, computed without the handler."""
    with torch.inference_mode():
        scores = Network(WITH_STEPS)(torch.from_numpy((pictures.mean(2) / 255).astype(np.float32)))
        return (scores.flip(1) / 1.5).softmax(1).numpy()


SMALL = np.random.default_rng(4).integers(2, 256, (6, 4, 3), np.uint8)


@pytest.mark.parametrize("form", ["raw", "fractions", "picture file", "one pattern"])
def test_steps_around_the_network_are_part_of_every_answer(served, form):
    worker = served(WITH_STEPS)
    if form == "one pattern":
        is_fast, answered = worker.batch_of_one_pattern([each.tobytes() for each in SMALL], "application/octet-stream")
        assert not is_fast
        answers = [json.loads(answer[3]) for answer in answered]
    elif form == "picture file":
        answers = [worker.json(image_files.save(each), "image/png") for each in SMALL]
    else:
        body = SMALL.tobytes() if form == "raw" else json.dumps((SMALL / 255).tolist()).encode()
        answers = worker.json(body, "application/octet-stream" if form == "raw" else "application/json")
    np.testing.assert_allclose(values(answers), rows(SMALL), atol=1e-6)


@pytest.mark.parametrize(
    ("picture", "status", "detail"),
    [
        (np.zeros((4, 3), np.uint8), 422, "the model refuses this input: the picture is black"),
        (np.ones((4, 3), np.uint8), 500, "the model's step before() raised AttributeError; the service's log has the"),
    ],
    ids=["refused", "failed"],
)
def test_a_step_that_fails_before_the_network_answers_its_request_alone(served, caplog, picture, status, detail):
    raw = {"Content-Type": "application/octet-stream", "Host": "x"}
    requests = [(each.tobytes(), raw) for each in (SMALL[0], picture, SMALL[1])]
    first, failed, last = served(WITH_STEPS).batch(*requests)
    np.testing.assert_allclose(values([json.loads(first[3]), json.loads(last[3])]), rows(SMALL[:2]), atol=1e-6)
    assert (failed[0], failed[1]) == (status, PROBLEM)
    assert json.loads(failed[3])["detail"].startswith(detail)
    assert ("AttributeError: " in caplog.text) == (status == 500)


def test_a_step_that_fails_after_the_network_answers_its_request_alone(served, monkeypatch):
    worker = served(WITH_STEPS)
    scores = worker.handler._scores

    def with_large_ones(arrays):
        outputs = scores(arrays).clone()
        outputs[1:3] = 10
        return outputs

    monkeypatch.setattr(worker.handler, "_scores", with_large_ones)
    raw = {"Content-Type": "application/octet-stream", "Host": "x"}
    first, failed, last = worker.batch(*((body.tobytes(), raw) for body in (SMALL[0], SMALL[1:3], SMALL[3])))
    np.testing.assert_allclose(values([json.loads(first[3]), json.loads(last[3])]), rows(SMALL[[0, 3]]), atol=1e-6)
    assert failed[0] == 500
    assert "the model's step after() must return an array of 3, got 2; the" in json.loads(failed[3])["detail"]
    monkeypatch.setattr(worker.handler, "_scores", lambda arrays: scores(arrays) + 10)
    assert worker.one(SMALL[0].tobytes(), "application/octet-stream")[0] == 500


def test_a_model_with_steps_shows_its_pictures_and_explains_none(served):
    answer = served(WITH_STEPS).json(image_files.save(SMALL[0]), "image/png", X_Query="picture=true")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["picture"]))))
    assert shown.tolist() == SMALL[0].tolist()
    status, _, _, body = served(WITH_STEPS).one(SMALL[0].tobytes(), "application/octet-stream", explain="True")
    assert status == 422
    assert "has steps of its own" in json.loads(body)["detail"]


def test_an_archive_without_its_steps_is_not_served(tmp_path):
    with pytest.raises(StepsError, match="has no class Columns"):
        Served(dataclasses.replace(WITH_STEPS, steps="Columns"), tmp_path / "columns")
