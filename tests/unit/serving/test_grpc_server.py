"""The gRPC bridge as a process, between a real gRPC client and a stand-in for TorchServe."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from handlers import limits
from handlers.metrics.recorder import Batch, Recorder
from serving import NAME, VERSION
from serving.settings import ROOT
from serving.sidecars import triton
from serving.sidecars.grpc.proto import __main__ as generator
from serving.sidecars.grpc.proto import open_inference_pb2 as messages
from tests.support import free_ports
from tests.support.signatures import FASHION
from tests.support.torchserve_stub import TorchServeStub, predict

DEADLINE = 30  # seconds after which a call fails its test
PIXELS = np.random.default_rng(5).integers(0, 256, (2, 28, 28), dtype=np.uint8)
SERVICE = "inference.GRPCInferenceService"


class Bridge:
    """A bridge with the environment ``upstream``: ``address`` is where it listens."""

    def __init__(self, upstream, port=None, program=None):
        self.process = subprocess.Popen(
            [sys.executable, *(("-c", program) if program else ("-m", "serving.sidecars.grpc.server"))],
            cwd=ROOT,
            env={**os.environ, **upstream, "FASHION_GRPC_BRIDGE_PORT": port or str(free_ports.find(1)[0])},
            stderr=subprocess.PIPE,
            text=True,
        )
        errors = self.process.stderr
        assert errors is not None
        self.lines: list[str] = []
        for line in errors:
            self.lines.append(line)
            if match := re.search(r"gRPC on (127\.0\.0\.1:\d+)", line):
                self.address = match[1]
                break
        else:
            self.process.wait(DEADLINE)
            errors.close()
            return
        # Read the rest of its log, so that the pipe never fills.
        self._reader = threading.Thread(target=self._read, args=(errors,))
        self._reader.start()

    def _read(self, errors):
        with errors:
            self.lines.extend(errors)

    def stop(self):
        """End it with SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code


@pytest.fixture(scope="module")
def shared_upstream():
    with TorchServeStub() as stub:
        yield stub


@pytest.fixture
def upstream(shared_upstream):
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """The folder of the workers' counts."""
    return tmp_path_factory.mktemp("run") / "counts"


@pytest.fixture(scope="module")
def bridge(shared_upstream, counts):
    running = Bridge({**shared_upstream.environment, "FASHION_RUN_DIR": str(counts.parent)})
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0
    assert not [line for line in running.lines if "Traceback" in line]


@pytest.fixture(scope="module")
def channel(bridge):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(bridge.address, options) as channel:
        yield channel


def method_of(channel, name):
    """A method of the protocol, as in a generated stub."""
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=getattr(messages, name + "Request").SerializeToString,
        response_deserializer=getattr(messages, name + "Response").FromString,
    )


@pytest.fixture
def call(channel, upstream):  # noqa: ARG001 (it resets the stand-in)
    """Call one method of the protocol."""
    return lambda name, request, timeout=DEADLINE: method_of(channel, name)(request, timeout=timeout)


def request_for(pixels=PIXELS, model="fashion", **more):
    tensor = {"name": "image", "datatype": "UINT8", "shape": pixels.shape}
    return messages.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[pixels.tobytes()], **more)


def refused(call, request, method="ModelInfer", timeout=DEADLINE):
    with pytest.raises(grpc.RpcError) as caught:
        call(method, request, timeout)
    return caught.value.code(), caught.value.details()


def test_an_inference_is_answered_completely(call, upstream):
    response = call("ModelInfer", request_for(id="n 42"))
    expected = predict(PIXELS)
    assert (response.model_name, response.model_version, response.id) == ("fashion", "1.0", "n 42")
    described = [(output.name, output.datatype, list(output.shape)) for output in response.outputs]
    assert described == [("probabilities", "FP32", [2, 3]), ("class", "INT64", [2]), ("label", "BYTES", [2])]
    probabilities, classes, labels = response.raw_output_contents
    assert probabilities == expected.tobytes()
    assert classes == expected.argmax(1).tobytes()
    names = [[b"Shirt", b"Bag", b"Ankle boot"][index] for index in expected.argmax(1)]
    assert labels == b"".join(struct.pack("<I", len(name)) + name for name in names)
    assert upstream.paths == ["/predictions/fashion"]


def test_the_requested_version_and_outputs_are_returned(call, upstream):
    outputs = [{"name": "class"}, {"name": "probabilities", "parameters": {"binary_data": {"bool_param": False}}}]
    response = call("ModelInfer", request_for(model_version="2.0", outputs=outputs))
    assert upstream.paths == ["/predictions/fashion/2.0"]
    assert [output.name for output in response.outputs] == ["class", "probabilities"]
    assert response.raw_output_contents[1] == predict(PIXELS).tobytes()


def test_parameters_are_returned_unchanged(call):
    parameters = {
        "flag": messages.InferParameter(bool_param=True),
        "number": messages.InferParameter(int64_param=-7),
        "large": messages.InferParameter(uint64_param=2**64 - 1),
        "fraction": messages.InferParameter(double_param=0.5),
        "text": messages.InferParameter(string_param="ž"),
    }
    response = call("ModelInfer", request_for(parameters=parameters))
    assert response.parameters == messages.ModelInferResponse(parameters=parameters).parameters


def test_typed_contents_get_a_typed_answer(call):
    tensor: dict[str, Any] = {"name": "image", "datatype": "INT32", "shape": [2, 784]}
    tensor["contents"] = {"int_contents": PIXELS.ravel().tolist()}
    response = call("ModelInfer", messages.ModelInferRequest(model_name="fashion", inputs=[tensor]))
    assert not response.raw_output_contents
    probabilities, classes, labels = (output.contents for output in response.outputs)
    np.testing.assert_array_equal(np.float32(probabilities.fp32_contents), predict(PIXELS).ravel())
    expected = predict(PIXELS).argmax(1).tolist()
    assert classes.int64_contents == expected
    assert labels.bytes_contents == [[b"Shirt", b"Bag", b"Ankle boot"][index] for index in expected]


def test_calls_in_flight_do_not_wait_for_each_other(call, upstream):
    upstream.crowd = 32  # the stand-in answers only after all 32 have arrived
    with ThreadPoolExecutor(32) as pool:
        requests = [request_for(np.full((1, 784), n, np.uint8), "together", id=str(n)) for n in range(32)]
        responses = list(pool.map(lambda request: call("ModelInfer", request), requests))
    assert [response.id for response in responses] == [str(n) for n in range(32)]


STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    418: "UNKNOWN",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "UNAVAILABLE",
}


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_each_http_status_has_its_code(call, upstream, status, code):
    upstream.error_body = json.dumps({"title": "Wrong", "detail": "pixels are from 0 to 255"}).encode()
    expected = (grpc.StatusCode[code], "pixels are from 0 to 255")
    assert refused(call, request_for(model=f"http-{status}")) == expected


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"code": 503, "type": "X", "message": "Model has no worker"}', "Model has no worker"),
        (b"<html>", "the inference server answered with HTTP status 503"),
        (b"", "the inference server answered with HTTP status 503"),
        (b"[]", "the inference server answered with HTTP status 503"),
        (b'{"detail": null}', "the inference server answered with HTTP status 503"),
        (json.dumps({"detail": "x" * 100_000}).encode(), "x" * 2000),
        (json.dumps({"detail": "ž\n\0"}).encode(), "ž\n\0"),
    ],
    ids=["TorchServe's own", "HTML", "nothing", "a list", "null", "giant", "not ASCII"],
)
def test_the_detail_is_passed_on_from_any_form_of_error(call, upstream, body, detail):
    upstream.error_body = body
    assert refused(call, request_for(model="http-503")) == (grpc.StatusCode.UNAVAILABLE, detail)


def test_a_problem_of_the_handler_reaches_the_caller(call):
    code, detail = refused(call, request_for(PIXELS.reshape(2, 14, 56)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "14" in detail
    assert "56" in detail


UNKNOWN = {
    "unknown": ("nosuch", ""),
    "unknown version": ("fashion", "3.0"),
    "every version": ("fashion", "all"),
    "a path": ("../models/fashion", ""),
    "dots": ("..", ""),
    "a query": ("fashion?x=", ""),
    "a version with a path": ("fashion", "1.0/../2.0"),
    "a line break": ("fashion\r\nX: y", ""),
}


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(("name", "version"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_model_or_version_is_not_found(call, method, name, version):
    if method == "ModelInfer":
        request = request_for(model=name, model_version=version)
    else:
        request = getattr(messages, method + "Request")(name=name, version=version)
    assert refused(call, request, method)[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("name", "version"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_model_or_version_is_not_ready(call, name, version):
    assert not call("ModelReady", messages.ModelReadyRequest(name=name, version=version)).ready


def test_a_request_without_a_model_is_refused(call):
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "the model name is missing")
    assert refused(call, request_for(model="")) == expected
    assert refused(call, messages.ModelReadyRequest(), "ModelReady") == expected


def test_a_message_over_the_limit_is_refused(call):
    code, _ = refused(call, request_for(np.zeros(limits.REQUEST_BYTES + 1, np.uint8)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_not_a_message_are_refused(channel):
    method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        method(b"\xff" * 20, timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the bytes are not a message of type inference.ModelInferRequest"


def test_a_deadline_ends_the_request_behind_the_bridge(channel, upstream):
    answer = method_of(channel, "ModelInfer").future(request_for(model="held"), timeout=2)
    assert upstream.held.wait(DEADLINE)
    assert answer.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert upstream.cancelled.wait(DEADLINE)


def test_a_broken_connection_is_unavailable(call):
    assert refused(call, request_for(model="drop"))[0] is grpc.StatusCode.UNAVAILABLE


def test_an_answer_outside_of_the_protocol_is_an_internal_error_and_logged(upstream):
    running = Bridge(upstream.environment)
    try:
        with grpc.insecure_channel(running.address) as channel:
            infer = method_of(channel, "ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                infer(request_for(model="nonsense"), timeout=DEADLINE)
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert infer(request_for(), timeout=DEADLINE).model_name == "fashion"
    finally:
        assert running.stop() == 0
    assert any("Traceback" in line for line in running.lines)


def test_the_configuration_in_tritons_form(call):
    config = call("ModelConfig", messages.ModelConfigRequest(name="fashion", version="2.0")).config
    assert (config.name, config.platform, config.max_batch_size) == ("fashion", "pytorch_torchscript", limits.EXAMPLES)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("image", messages.TYPE_UINT8, [28, 28])]
    assert [(t.name, t.data_type, list(t.dims), t.HasField("reshape")) for t in config.output] == [
        ("probabilities", messages.TYPE_FP32, [3], False),
        ("class", messages.TYPE_INT64, [1], True),
        ("label", messages.TYPE_STRING, [1], True),
    ]
    assert [(group.kind, group.count) for group in config.instance_group] == [(messages.ModelInstanceGroup.KIND_CPU, 1)]
    assert config.HasField("dynamic_batching")


def test_statistics_are_those_of_the_workers(call, counts):
    recorder = Recorder(counts, FASHION)
    recorder.add(Batch(["image/png"] * 2, [], (0.001, 0.002, 0.003), np.full((6, 10), 0.1, np.float32)))
    recorder.flush()
    first, whole = call("ModelStatistics", messages.ModelStatisticsRequest(name="fashion", version="1.0")).model_stats
    assert (first.name, first.version, whole.version) == ("fashion", "1.0", "1")
    assert (first.inference_count, first.execution_count) == (6, 1)
    stats = first.inference_stats
    assert (stats.success.count, stats.success.ns, stats.fail.count) == (2, 12_000_000, 0)
    assert [part.ns for part in (stats.compute_input, stats.compute_infer, stats.compute_output)] == [
        *(2_000_000, 4_000_000, 6_000_000)
    ]
    every = call("ModelStatistics", messages.ModelStatisticsRequest()).model_stats
    assert [(each.name, each.version, each.inference_count) for each in every] == [
        *(("fashion", "1.0", 6), ("fashion", "2.0", 0), ("together", "1.0", 0), ("together", "2.0", 0))
    ]


def test_the_repository_index_lists_all_or_ready_versions(call, upstream):
    versions = [(name, version) for name in ("fashion", "together") for version in ("1.0", "2.0")]
    for state, reason, ready in (("READY", "", versions), ("UNAVAILABLE", "0 of 1 workers are ready", [])):
        models = call("RepositoryIndex", messages.RepositoryIndexRequest()).models
        assert [(m.name, m.version, m.state, m.reason) for m in models] == [(*each, state, reason) for each in versions]
        models = call("RepositoryIndex", messages.RepositoryIndexRequest(ready=True)).models
        assert [(m.name, m.version) for m in models] == ready
        upstream.worker_status = "UNLOADED"
        # The bridge reuses a list of versions this long.
        time.sleep(triton.MAX_AGE_S)


@pytest.mark.parametrize(
    "method",
    ["RepositoryModelLoad", "SystemSharedMemoryStatus", "CudaSharedMemoryStatus", "TraceSetting", "LogSettings"],
)
def test_tritons_other_calls_are_unimplemented(channel, method):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"no method /{SERVICE}/{method}; {SERVICE} has ServerLive, " in str(caught.value.details())


def test_a_stream_of_inferences_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b"", b""]), timeout=DEADLINE))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelInfer" in str(caught.value.details())


def test_classification_is_answered_as_text(call):
    outputs = [{"name": "probabilities", "parameters": {"classification": {"int64_param": 1}}}]
    expected = [
        f"{row.max():f}:{row.argmax()}:{['Shirt', 'Bag', 'Ankle boot'][row.argmax()]}" for row in predict(PIXELS)
    ]
    response = call("ModelInfer", request_for(outputs=outputs))
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2, 1])
    raw = b"".join(struct.pack("<I", len(text)) + text.encode() for text in expected)
    assert list(response.raw_output_contents) == [raw]
    tensor = {"name": "image", "datatype": "UINT8", "shape": PIXELS.shape}
    typed = {**tensor, "contents": {"uint_contents": PIXELS.ravel().tolist()}}
    response = call("ModelInfer", messages.ModelInferRequest(model_name="fashion", inputs=[typed], outputs=outputs))
    assert [text.decode() for text in response.outputs[0].contents.bytes_contents] == expected


def test_ready_means_that_the_workers_are(call, upstream):
    requests = {
        "ServerReady": messages.ServerReadyRequest(),
        "ModelReady": messages.ModelReadyRequest(name="fashion", version="2.0"),
    }
    assert all(call(method, request).ready for method, request in requests.items())
    upstream.worker_status = "UNLOADED"
    assert not any(call(method, request).ready for method, request in requests.items())
    assert call("ServerLive", messages.ServerLiveRequest()).live


def test_metadata_describes_model_and_server(call, upstream):
    model = call("ModelMetadata", messages.ModelMetadataRequest(name="fashion"))
    assert (model.name, model.platform, list(model.versions)) == ("fashion", "pytorch_torchscript", ["1.0", "2.0"])
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("image", "UINT8", [-1, 28, 28])]
    assert [t.name for t in model.outputs] == ["probabilities", "class", "label"]
    server = call("ServerMetadata", messages.ServerMetadataRequest())
    assert (server.name, server.version, tuple(server.extensions)) == (NAME, VERSION, triton.NAMES)
    upstream.worker_status = "UNLOADED"
    code, detail = refused(call, messages.ModelMetadataRequest(name="fashion"), "ModelMetadata")
    assert (code, "not ready" in detail) == (grpc.StatusCode.UNAVAILABLE, True)


def test_the_health_service_follows_the_workers(channel, upstream):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        upstream.worker_status = "READY"
        watch = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE)
        expected = health_pb2.HealthCheckResponse.SERVING
        assert next(change for change in watch if change.status == expected)
        assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE).status == expected
        upstream.worker_status = "UNLOADED"
        expected = health_pb2.HealthCheckResponse.NOT_SERVING
        assert next(change for change in watch if change.status == expected)
        watch.cancel()


def test_reflection_lists_and_describes_the_service(channel):
    request = reflection_pb2.ServerReflectionRequest
    requests = [request(list_services=""), request(file_containing_symbol=SERVICE)]
    listed, described = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
    names = {service.name for service in listed.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert described.file_descriptor_response.file_descriptor_proto == [messages.DESCRIPTOR.serialized_pb]


def test_sigterm_lets_calls_in_flight_finish(upstream):
    running = Bridge(upstream.environment)
    with grpc.insecure_channel(running.address) as channel:
        answer = method_of(channel, "ModelInfer").future(request_for(model="held"), timeout=DEADLINE)
        assert upstream.held.wait(DEADLINE)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert next(change for change in watch if change.status == health_pb2.HealthCheckResponse.SERVING)
        running.process.send_signal(signal.SIGTERM)
        # Watchers get the change before the listener closes.
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        upstream.release()
        assert answer.result(DEADLINE).raw_output_contents[0] == predict(PIXELS).tobytes()
        assert running.wait() == 0
    assert not [line for line in running.lines if "Traceback" in line]


def test_sigterm_does_not_wait_for_watchers_of_the_health_service(upstream):
    running = Bridge(upstream.environment)
    with grpc.insecure_channel(running.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert next(watch)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < DEADLINE / 2
        watch.cancel()


SHORT_GRACE = """
from serving.sidecars.grpc import server
from serving.sidecars.process import run_until_signal
server.GRACE_S = 0.5
raise SystemExit(run_until_signal("grpc_bridge", server.serve))
"""


def test_sigterm_does_not_wait_forever_for_a_hanging_call(upstream):
    running = Bridge(upstream.environment, program=SHORT_GRACE)
    with grpc.insecure_channel(running.address) as channel:
        answer = method_of(channel, "ModelInfer").future(request_for(model="held"), timeout=DEADLINE)
        assert upstream.held.wait(DEADLINE)
        assert running.stop() == 0
        assert isinstance(answer.exception(DEADLINE), grpc.RpcError)


def test_without_torchserve_calls_are_unavailable_and_the_bridge_keeps_running():
    inference, management = map(str, free_ports.find(2))
    running = Bridge({"FASHION_INFERENCE_PORT": inference, "FASHION_MANAGEMENT_PORT": management})
    try:
        with grpc.insecure_channel(running.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                method_of(channel, "ModelInfer")(request_for(), timeout=DEADLINE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not method_of(channel, "ServerLive")(messages.ServerLiveRequest(), timeout=DEADLINE).live
            assert not method_of(channel, "ServerReady")(messages.ServerReadyRequest(), timeout=DEADLINE).ready
    finally:
        assert running.stop() == 0


def test_a_port_in_use_is_reported_in_one_line(bridge):
    port = bridge.address.partition(":")[2]
    second = Bridge({}, port)
    assert second.process.returncode == 1
    errors = [line for line in second.lines if line.startswith("grpc_bridge: ")]
    assert errors == [f"grpc_bridge: cannot listen on 127.0.0.1:{port}; is the port in use?\n"]
    assert not [line for line in second.lines if "Traceback" in line]


def test_the_generated_code_matches_the_proto_file(tmp_path):
    (tmp_path / generator.PROTO).parent.mkdir(parents=True)
    assert generator.generate(tmp_path) == 0
    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert [path.name for path in generated] == ["open_inference_pb2.py", "open_inference_pb2.pyi"]
    for path in generated:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), "run python -m serving.sidecars.grpc.proto"
