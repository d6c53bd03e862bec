"""Triton's gRPC client: inference, health, metadata, errors, deadlines."""

import queue

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import aio, model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from serving.polling import wait_until
from tests.support import image_files
from tests.support.reference import PIXELS, TIMEOUT, VERSION, assert_classes, assert_same, labels, run


@pytest.fixture
def client(service):
    with triton.InferenceServerClient(service.grpc) as client:
        yield client


def tensor(values, datatype="UINT8", name="image"):
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def test_health(client, model):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, VERSION)
    assert not client.is_model_ready("nosuch")
    assert not client.is_model_ready(model, "9.9")


def test_metadata(client, model):
    assert "statistics" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata(model, VERSION)
    assert (metadata.name, metadata.platform) == (model, "pytorch_torchscript")
    assert VERSION in metadata.versions
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("image", "UINT8", [-1, 28, 28])
    ]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.outputs] == [
        ("probabilities", "FP32", [-1, 10]),
        ("class", "INT64", [-1]),
        ("label", "BYTES", [-1]),
        ("ood", "FP32", [-1]),
    ]


def test_the_configuration(client, model):
    for version in ("", VERSION):
        config = client.get_model_config(model, version).config
        assert (config.name, config.platform) == (model, "pytorch_torchscript")
        assert config.max_batch_size >= len(PIXELS)
        assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
            ("image", model_config_pb2.TYPE_UINT8, [28, 28])
        ]
        assert [each.name for each in config.output] == ["probabilities", "class", "label", "ood"]
        assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


def test_statistics_count_each_inference(client):
    # No other test of this module uses this model, so the counts before are complete.
    model, features = "sigmoid_net", np.zeros((5, 3), np.float32)

    def counts(*arguments):
        stats = client.get_inference_statistics(*arguments).model_stats
        return next(each for each in stats if (each.name, each.version) == (model, VERSION))

    before = counts()
    for _ in range(3):
        client.infer(model, [tensor(features, "FP32", name="features")])
    # The workers write their counts four times a second.
    assert wait_until(lambda: counts().inference_count == before.inference_count + 15, TIMEOUT)
    after = counts(model)
    assert after == counts(model, VERSION)
    assert after.inference_stats.success.count == before.inference_stats.success.count + 3
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert 1 <= after.execution_count - before.execution_count <= 3


def test_the_repository_index(client, model):
    models = client.get_model_repository_index().models
    assert (model, VERSION, "READY") in [(each.name, each.version, each.state) for each in models]


@pytest.mark.parametrize("method", ["get_system_shared_memory_status", "get_trace_settings", "get_log_settings"])
def test_other_extensions_do_not_exist(client, method):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, method)()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("version", ["", VERSION], ids=["default version", "a version"])
def test_inference(client, model, expected, version):
    result = client.infer(model, [tensor(PIXELS)], model_version=version, request_id="42")
    assert_same(result.as_numpy("probabilities"), expected)
    assert result.as_numpy("class").tolist() == expected.argmax(1).tolist()
    assert [name.decode() for name in result.as_numpy("label")] == labels(expected)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("42", model, VERSION)


def test_only_the_requested_outputs(client, model, expected):
    result = client.infer(model, [tensor(PIXELS)], outputs=[triton.InferRequestedOutput("class")])
    assert [output.name for output in result.get_response().outputs] == ["class"]
    assert result.as_numpy("class").tolist() == expected.argmax(1).tolist()


def test_the_most_probable_classes(client, model, expected):
    requested = [triton.InferRequestedOutput("probabilities", class_count=3)]
    result = client.infer(model, [tensor(PIXELS)], outputs=requested).as_numpy("probabilities")
    assert_classes(result, expected, 3)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, model, expected, algorithm):
    result = client.infer(model, [tensor(PIXELS)], compression_algorithm=algorithm)
    assert_same(result.as_numpy("probabilities"), expected)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(np.zeros((90_000, 784), np.uint8))], compression_algorithm=algorithm)
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_float_datatypes(client, model, expected, datatype):
    dtype = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[datatype]
    result = client.infer(model, [tensor((PIXELS / 255).astype(dtype), datatype, name="x")])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=0.02 if datatype == "FP16" else 1e-4)


def test_encoded_images(client, model, expected):
    files = np.array([image_files.save(image) for image in PIXELS], dtype=np.object_)
    assert_same(client.infer(model, [tensor(files, "BYTES")]).as_numpy("probabilities"), expected)


def test_typed_contents(service, model, expected):
    """Triton's messages without its client, which can send raw contents only."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="UINT8", shape=PIXELS.shape)
    request.inputs[0].contents.uint_contents.extend(PIXELS.ravel().tolist())
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        response = call(request, timeout=TIMEOUT)
    assert_same(response.outputs[0].contents.fp32_contents, expected)


def test_requests_at_once(client, model, expected):
    results: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    for n in range(64):
        client.async_infer(
            model,
            [tensor(PIXELS[[n % 5]])],
            lambda result, error: results.put((result, error)),
            request_id=str(n),
        )
    seen = set()
    for _ in range(64):
        result, error = results.get(timeout=TIMEOUT)
        assert error is None
        number = int(result.get_response().id)
        seen.add(number)
        assert_same(result.as_numpy("probabilities"), expected[[number % 5]])
    assert seen == set(range(64))


def test_the_asyncio_client(service, model, expected):
    async def infer():
        async with aio.InferenceServerClient(service.grpc) as client:
            assert await client.is_model_ready(model)
            return await client.infer(model, [tensor(PIXELS)])

    assert_same(run(infer()).as_numpy("probabilities"), expected)


ERRORS = {
    "unknown model": ("nosuch", PIXELS, "UINT8", None, "NOT_FOUND", "nosuch"),
    "wrong shape": ("fashion_mlp", PIXELS[:, :14], "UINT8", None, "INVALID_ARGUMENT", "14"),
    "out of range": ("fashion_mlp", PIXELS.astype(np.float32), "FP32", None, "INVALID_ARGUMENT", "from 0 to 1"),
    "unknown output": ("fashion_mlp", PIXELS, "UINT8", "scores", "INVALID_ARGUMENT", "scores"),
    "too many": ("fashion_mlp", np.zeros((20_000, 784), np.uint8), "UINT8", None, "RESOURCE_EXHAUSTED", "20000"),
}


@pytest.mark.parametrize(("name", "values", "datatype", "output", "code", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_their_cause(client, name, values, datatype, output, code, message):
    requested = output and [triton.InferRequestedOutput(output)]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, [tensor(values, datatype)], outputs=requested)
    assert caught.value.status() == f"StatusCode.{code}"
    assert message in caught.value.message()


def test_a_large_batch(client, model, expected):
    repeated = np.tile(PIXELS, (800, 1, 1))  # 4,000 images, 3 MB
    result = client.infer(model, [tensor(repeated)])
    assert_same(result.as_numpy("probabilities"), np.tile(expected, (800, 1)))


def test_a_deadline(client, model):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(PIXELS)], client_timeout=1e-5)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert client.is_server_live()
