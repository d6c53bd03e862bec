"""TorchServe's own gRPC ports, reachable from this machine only: no request, valid or not, ends a worker."""

from __future__ import annotations

import json
from contextlib import suppress

import grpc
import pytest
import requests
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.settings import HOST
from serving.sidecars.grpc.proto import open_inference_pb2 as oip
from serving.torchserve.management import Management

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
VALID = b"[0.5, -0.25, 1.0]"


def _messages():
    """TorchServe's request and answer, built from field numbers, because its package contains no stubs."""
    file = descriptor_pb2.FileDescriptorProto(name="predictions.proto", package="predictions", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="Request")
    for number, name in enumerate(("model_name", "model_version"), start=1):
        request.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".predictions.Request.InputEntry",
    )
    request.field.add(name="sequence_id", number=4, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    answer = file.message_type.add(name="Answer")
    answer.field.add(name="prediction", number=1, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"predictions.{name}"))
        for name in ("Request", "Answer")
    ]


Request, Answer = _messages()

# Inputs of a PredictionsRequest, and "probabilities" or the first digits of the problem's status.
CASES = {
    "JSON": ({"data": VALID}, "probabilities"),
    "body": ({"body": VALID}, "probabilities"),
    "broken JSON": ({"data": b"[1, 2"}, "415"),
    "wrong shape": ({"data": b"[1, 2]"}, "422"),
    "NaN": ({"data": b"[NaN, 1, 2]"}, "422"),
    "no input": ({}, "400"),
    "empty input": ({"data": b""}, "400"),
    "bytes": ({"data": bytes(range(255))}, "415"),
    "a name of control characters": ({"\x00\n\x7f": VALID}, "probabilities"),
    "a header's name": ({"describe": b"True"}, "4"),
    "explain as input": ({"explain": b"True"}, "4"),
    "a megabyte": ({"data": b"[" * 1_000_000}, "4"),
}


@pytest.fixture
def channel(tiny_service):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"{HOST}:{tiny_service.settings.ts_grpc.number}", options) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _worker_survives(tiny_service):
    """After the test, the same worker process answers correctly."""

    def worker() -> int:
        (model,) = Management(tiny_service.management).models()
        assert model.ready
        return model.workers[0].pid

    before = worker()
    yield
    assert worker() == before
    answered = requests.post(f"{tiny_service.inference}/predictions/tiny", json=json.loads(VALID), timeout=30)
    assert answered.status_code == 200
    assert answered.json()["label"] == "left"


def _request(inputs: dict[str, bytes], model: str = "tiny", **fields: str):
    return Request(model_name=model, input=inputs, **fields)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
def test_predictions_are_answered(channel, method, case):
    inputs, word = CASES[case]
    make = channel.unary_unary if method == "Predictions" else channel.unary_stream
    call = make(f"{SERVICE}/{method}", Request.SerializeToString, Answer.FromString)
    try:
        answered = call(_request(inputs), timeout=30)
        texts = [answered] if method == "Predictions" else list(answered)
        text = texts[0].prediction.decode()
    except grpc.RpcError as error:
        text = f"{error.code()} {error.details()}"
        assert word != "probabilities", text
        return
    if word == "probabilities":
        assert json.loads(text)["label"] == "left"
    else:
        assert str(json.loads(text)["status"]).startswith(word)


@pytest.mark.parametrize(("model", "version"), [("unknown", ""), ("tiny", "9.9"), ("", ""), ("../tiny", "x")])
def test_an_unknown_model_is_refused(channel, model, version):
    call = channel.unary_unary(f"{SERVICE}/Predictions", Request.SerializeToString, Answer.FromString)
    with pytest.raises(grpc.RpcError):
        call(_request({"data": VALID}, model, model_version=version), timeout=30)


@pytest.mark.parametrize("sequence", [None, "one"])
def test_a_stream_of_requests_does_no_harm(channel, sequence):
    call = channel.stream_stream(f"{SERVICE}/StreamPredictions2", Request.SerializeToString, Answer.FromString)
    fields = {} if sequence is None else {"sequence_id": sequence}
    # The model is not registered for sequences. The test checks only that the worker survives.
    with suppress(grpc.RpcError):
        list(call(iter([_request({"data": VALID}, **fields)] * 3), timeout=5))


def test_bytes_that_are_not_a_message_do_no_harm(channel):
    call = channel.unary_unary(f"{SERVICE}/Predictions", lambda message: message, Answer.FromString)
    with pytest.raises(grpc.RpcError):
        call(b"\xff" * 100, timeout=30)


def _inference(**changes):
    tensor = oip.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([0.5, -0.25, 1.0])
    return oip.ModelInferRequest(**{"model_name": "tiny", "id": "1", "inputs": [tensor], **changes})


@pytest.mark.parametrize(
    "message",
    [
        _inference(),
        _inference(inputs=[]),
        _inference(raw_input_contents=[b"\x00" * 12]),
        _inference(model_version="1.0"),
        _inference(model_name="unknown"),
    ],
    ids=["valid", "no inputs", "raw contents", "version", "unknown model"],
)
@pytest.mark.parametrize("package", ["inference", "org.pytorch.serve.grpc.openinference"])
def test_torchserves_own_open_inference_service_is_off(channel, package, message):
    call = channel.unary_unary(
        f"/{package}.GRPCInferenceService/ModelInfer",
        oip.ModelInferRequest.SerializeToString,
        oip.ModelInferResponse.FromString,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
