"""KServe's Python client: v1 and v2 over HTTP, v2 over gRPC."""

import base64

import grpc
import httpx
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.support import image_files
from tests.support.reference import PIXELS, VERSION, assert_same, labels, run


def make_request(model, binary, **options):
    tensor = InferInput("image", list(PIXELS.shape), "UINT8")
    tensor.set_data_from_numpy(PIXELS, binary_data=binary)
    return InferRequest(model, [tensor], request_id="42", **options)


def over_http(call, protocol="v2"):
    async def run_client():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))
        try:
            return await call(client)
        finally:
            await client.close()

    return run(run_client())


def over_grpc(service, call):
    async def run_client():
        async with InferenceGRPCClient(service.grpc, retries=0) as client:
            return await call(client)

    return run(run_client())


def assert_predictions(response, model, expected):
    outputs = {output.name: output for output in response.outputs}
    assert (response.model_name, response.id) == (model, "42")
    assert_same(outputs["probabilities"].as_numpy(), expected)
    assert outputs["class"].as_numpy().tolist() == expected.argmax(1).tolist()
    names = outputs["label"].as_numpy().tolist()
    assert [each if isinstance(each, str) else each.decode() for each in names] == labels(expected)


def test_health_over_http(service, model):
    assert over_http(lambda client: client.is_server_live(service.http))
    assert over_http(lambda client: client.is_server_ready(service.http))
    assert over_http(lambda client: client.is_model_ready(service.http, model))
    assert not over_http(lambda client: client.is_model_ready(service.http, "nosuch"))


@pytest.mark.parametrize("binary", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
def test_inference_over_http(service, model, expected, binary, binary_out):
    request = make_request(model, binary, parameters={"binary_data_output": binary_out})
    assert_predictions(over_http(lambda client: client.infer(service.http, request, model_name=model)), model, expected)


def test_requested_outputs_over_http(service, model, expected):
    request = make_request(model, True, request_outputs=[RequestedOutput("class", {"binary_data": True})])
    response = over_http(lambda client: client.infer(service.http, request, model_name=model))
    assert [output.name for output in response.outputs] == ["class"]
    assert response.outputs[0].as_numpy().tolist() == expected.argmax(1).tolist()


def test_an_error_over_http(service):
    with pytest.raises(httpx.HTTPStatusError) as caught:
        over_http(lambda client: client.infer(service.http, make_request("nosuch", True), model_name="nosuch"))
    assert caught.value.response.status_code == 404


@pytest.mark.parametrize("form", ["pixels", "base64"])
def test_v1_predict(service, model, expected, form):
    instances = (
        PIXELS.tolist()
        if form == "pixels"
        else [{"b64": base64.b64encode(image_files.save(i)).decode()} for i in PIXELS]
    )
    answer = over_http(
        lambda client: client.infer(service.http, {"instances": instances}, model_name=model), protocol="v1"
    )
    assert [each["label"] for each in answer["predictions"]] == labels(expected)
    assert_same([list(each["probabilities"].values()) for each in answer["predictions"]], expected)


def test_health_over_grpc(service, model):
    assert over_grpc(service, lambda client: client.is_server_live())
    assert over_grpc(service, lambda client: client.is_server_ready())
    assert over_grpc(service, lambda client: client.is_model_ready(model))
    assert not over_grpc(service, lambda client: client.is_model_ready("nosuch"))


@pytest.mark.parametrize("binary", [True, False], ids=["raw contents", "typed contents"])
def test_inference_over_grpc(service, model, expected, binary):
    request = make_request(model, binary, model_version=VERSION)
    assert_predictions(over_grpc(service, lambda client: client.infer(request)), model, expected)


def test_an_error_over_grpc(service):
    with pytest.raises(grpc.RpcError) as caught:
        over_grpc(service, lambda client: client.infer(make_request("nosuch", True)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
