"""Triton's HTTP client: JSON and binary tensors, health, metadata, errors."""

import numpy as np
import pytest
import requests
from tritonclient import http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from serving.polling import wait_until
from tests.support import image_files
from tests.support.reference import PIXELS, TIMEOUT, VERSION, assert_classes, assert_same, labels, run
from tests.support.signatures import LABELS

DATATYPES = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.fixture
def client(service):
    with http.InferenceServerClient(service.host, network_timeout=TIMEOUT, concurrency=8) as client:
        yield client


def tensor(values, datatype="UINT8", binary=True, name="image"):
    tensor = http.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def outputs(binary, *names):
    return [http.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_health(client, model):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, VERSION)
    assert not client.is_model_ready("nosuch")
    assert not client.is_model_ready(model, "9.9")


def test_metadata(client, model):
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    for version in ("", VERSION):
        metadata = client.get_model_metadata(model, version)
        assert metadata["name"] == model
        assert VERSION in metadata["versions"]
        assert metadata["platform"] == "pytorch_torchscript"
        assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
        assert metadata["outputs"] == [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "class", "datatype": "INT64", "shape": [-1]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "ood", "datatype": "FP32", "shape": [-1]},
        ]


def test_the_configuration(client, model):
    for version in ("", VERSION):
        config = client.get_model_config(model, version)
        assert (config["name"], config["platform"]) == (model, "pytorch_torchscript")
        assert config["max_batch_size"] >= len(PIXELS)
        assert [(each["name"], each["data_type"], each["dims"]) for each in config["input"]] == [
            ("image", "TYPE_UINT8", [28, 28])
        ]
        assert [each["name"] for each in config["output"]] == ["probabilities", "class", "label", "ood"]


def test_statistics_count_each_inference(client):
    # No other test of this module uses this model, so the counts before are complete.
    model, features = "sigmoid_net", np.zeros((5, 3), np.float32)

    def counts(*arguments):
        stats = client.get_inference_statistics(*arguments)["model_stats"]
        return next(each for each in stats if (each["name"], each["version"]) == (model, VERSION))

    before = counts()
    for _ in range(3):
        client.infer(model, [tensor(features, "FP32", name="features")])
    # The workers write their counts four times a second.
    assert wait_until(lambda: counts()["inference_count"] == before["inference_count"] + 15, TIMEOUT)
    after = counts(model)
    assert after == counts(model, VERSION)
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 3
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert 1 <= after["execution_count"] - before["execution_count"] <= 3


def test_the_repository_index(client, model):
    assert {"name": model, "version": VERSION, "state": "READY", "reason": ""} in client.get_model_repository_index()


@pytest.mark.parametrize("method", ["get_system_shared_memory_status", "get_trace_settings", "get_log_settings"])
def test_other_extensions_do_not_exist(client, method):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, method)()
    assert caught.value.status() == "404"


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("received", [True, False], ids=["binary out", "JSON out"])
def test_inference(client, model, expected, sent, received):
    requested = outputs(received, "label", "class", "probabilities")
    result = client.infer(model, [tensor(PIXELS, binary=sent)], outputs=requested, request_id="42")
    assert_same(result.as_numpy("probabilities"), expected)
    assert result.as_numpy("class").tolist() == expected.argmax(1).tolist()
    # Triton's client returns JSON strings as text and binary ones as bytes.
    names = [each if isinstance(each, str) else each.decode() for each in result.as_numpy("label").tolist()]
    assert names == labels(expected)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("42", model, VERSION)
    assert [output["name"] for output in response["outputs"]] == ["label", "class", "probabilities"]


@pytest.mark.parametrize("binary", [True, False], ids=["binary out", "JSON out"])
def test_the_most_probable_classes(client, model, expected, binary):
    requested = [http.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    result = client.infer(model, [tensor(PIXELS)], outputs=requested).as_numpy("probabilities")
    assert_classes(result, expected, 3)


def test_every_output_by_default(client, model, expected):
    result = client.infer(model, [tensor(PIXELS)], model_version=VERSION)
    assert_same(result.as_numpy("probabilities"), expected)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "class", "label"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_answers_in_an_encoding_that_the_gateway_may_choose(client, model, expected, algorithm):
    images = np.tile(PIXELS, (20, 1, 1))
    requested = outputs(False, "probabilities")
    result = client.infer(model, [tensor(images)], outputs=requested, response_compression_algorithm=algorithm)
    assert_same(result.as_numpy("probabilities"), np.tile(expected, (20, 1)))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests(client, model, expected, algorithm, binary):
    images = [tensor(PIXELS, binary=binary)]
    result = client.infer(model, images, request_compression_algorithm=algorithm)
    assert_same(result.as_numpy("probabilities"), expected)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatypes(client, model, expected, datatype):
    values = PIXELS.astype(DATATYPES[datatype])
    if datatype.startswith("FP"):
        values = (PIXELS / 255).astype(DATATYPES[datatype])
    result = client.infer(model, [tensor(values, datatype)])
    tolerance = 0.02 if datatype == "FP16" else 1e-4
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=tolerance)


@pytest.mark.parametrize("shape", [(5, 784), (5, 1, 28, 28)], ids=str)
def test_shapes_and_any_name(client, model, expected, shape):
    result = client.infer(model, [tensor(PIXELS.reshape(shape), name="input__0")])
    assert_same(result.as_numpy("probabilities"), expected)


def test_encoded_images(client, model, expected):
    files = np.array([image_files.save(image) for image in PIXELS], dtype=np.object_)
    result = client.infer(model, [tensor(files, "BYTES")])
    assert_same(result.as_numpy("probabilities"), expected)


def test_a_raw_request(service, model, expected):
    answer = requests.post(
        f"{service.http}/v2/models/{model}/infer",
        data=PIXELS.tobytes(),
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"},
        timeout=TIMEOUT,
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    result = http.InferenceServerClient.parse_response_body(answer.content, header_length=length)
    assert_same(result.as_numpy("probabilities"), expected)


def test_requests_at_once(client, model, expected):
    pending = [client.async_infer(model, [tensor(PIXELS[[n % 5]])], request_id=str(n)) for n in range(32)]
    for n, request in enumerate(pending):
        result = request.get_result(timeout=TIMEOUT)
        assert result.get_response()["id"] == str(n)
        assert_same(result.as_numpy("probabilities"), expected[[n % 5]])


def test_the_asyncio_client(service, model, expected):
    async def infer():
        async with aio.InferenceServerClient(service.host) as client:
            assert await client.is_model_ready(model)
            return await client.infer(model, [tensor(PIXELS)])

    assert_same(run(infer()).as_numpy("probabilities"), expected)


ERRORS = {
    "unknown model": ("nosuch", PIXELS, "UINT8", None, "404", "nosuch"),
    "wrong shape": ("fashion_mlp", PIXELS[:, :14], "UINT8", None, "422", "14"),
    "out of range": ("fashion_mlp", PIXELS.astype(np.float32), "FP32", None, "422", "from 0 to 1"),
    "unknown output": ("fashion_mlp", PIXELS, "UINT8", "scores", "422", "scores"),
}


@pytest.mark.parametrize(("name", "values", "datatype", "output", "status", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_their_cause(client, name, values, datatype, output, status, message):
    requested = output and outputs(True, output)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, [tensor(values, datatype)], outputs=requested)
    assert caught.value.status() == status
    assert message in caught.value.message()
    assert "exception occurred in the client" not in caught.value.message()


def test_an_unknown_version(client, model):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(PIXELS)], model_version="9.9")
    assert caught.value.status() == "404"


def test_labels_are_those_of_the_dataset(client, model):
    names = client.infer(model, [tensor(PIXELS)]).as_numpy("label")
    assert {name.decode() for name in names.tolist()} <= set(LABELS)
