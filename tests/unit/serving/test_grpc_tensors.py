"""Tensors of protobuf messages to JSON with raw bytes, and back; the handlers' ``open_inference`` checks the result."""

import math
import struct

import numpy as np
import orjson
import pytest

from handlers.inputs import open_inference
from serving.errors import CallError
from serving.sidecars.grpc import tensors
from serving.sidecars.grpc.proto.open_inference_pb2 import InferParameter, ModelInferRequest
from tests.support.torchserve_stub import SIGNATURE

VALUES = {
    "BOOL": ("bool_contents", [True, False], b"\1\0"),
    "INT8": ("int_contents", [-128, 127], struct.pack("<2b", -128, 127)),
    "INT16": ("int_contents", [-(2**15), 1], struct.pack("<2h", -(2**15), 1)),
    "INT32": ("int_contents", [-(2**31), 1], struct.pack("<2i", -(2**31), 1)),
    "INT64": ("int64_contents", [-(2**63), 1], struct.pack("<2q", -(2**63), 1)),
    "UINT8": ("uint_contents", [0, 255], b"\0\xff"),
    "UINT16": ("uint_contents", [0, 2**16 - 1], struct.pack("<2H", 0, 2**16 - 1)),
    "UINT32": ("uint_contents", [0, 2**32 - 1], struct.pack("<2I", 0, 2**32 - 1)),
    "UINT64": ("uint64_contents", [0, 2**64 - 1], struct.pack("<2Q", 0, 2**64 - 1)),
    "FP32": ("fp32_contents", [0.5, -math.inf], struct.pack("<2f", 0.5, -math.inf)),
    "FP64": ("fp64_contents", [0.1, 1e300], struct.pack("<2d", 0.1, 1e300)),
    "BYTES": ("bytes_contents", [b"ab", b""], b"\2\0\0\0ab\0\0\0\0"),
}


def request_of(datatype, shape=(2,), **contents):
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    if contents:
        tensor["contents"] = contents
    return ModelInferRequest(model_name="m", inputs=[tensor])


@pytest.mark.parametrize(("datatype", "field", "values", "raw"), [(k, *v) for k, v in VALUES.items()], ids=list(VALUES))
def test_typed_contents_become_raw_bytes(datatype, field, values, raw):
    body, length = tensors.to_http(request_of(datatype, **{field: values}))
    header = orjson.loads(body[:length])
    assert header["inputs"] == [
        {"name": "x", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    ]
    assert body[length:] == raw


@pytest.mark.parametrize(("datatype", "field", "values", "raw"), [(k, *v) for k, v in VALUES.items()], ids=list(VALUES))
def test_raw_bytes_become_typed_contents(datatype, field, values, raw):
    output = {"name": "y", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    header = orjson.dumps({"model_name": "m", "model_version": "1", "id": "", "outputs": [output] * 2})
    response = tensors.from_http(header + raw * 2, len(header), raw=False)
    for each in response.outputs:
        assert list(getattr(each.contents, field)) == values
    assert not response.raw_output_contents
    response = tensors.from_http(header + raw * 2, len(header), raw=True)
    assert list(response.raw_output_contents) == [raw, raw]
    assert not any(each.HasField("contents") for each in response.outputs)


def test_raw_contents_are_passed_on_and_every_output_is_requested_in_binary():
    pixels = np.arange(784, dtype=np.uint32).astype(np.uint8)
    request = ModelInferRequest(
        id="7",
        inputs=[{"name": "image", "datatype": "UINT8", "shape": [784]}],
        outputs=[{"name": "label", "parameters": {"binary_data": InferParameter(bool_param=False)}}],
        parameters={
            "binary_data_output": InferParameter(bool_param=False),
            "mine": InferParameter(string_param="x"),
        },
        raw_input_contents=[pixels.tobytes()],
    )
    assert tensors.is_raw(request)
    body, length = tensors.to_http(request)
    values, parsed = open_inference.parse(body, length, SIGNATURE)
    np.testing.assert_array_equal(values, pixels.reshape(1, 28, 28))
    assert parsed == open_inference.Request("7", {"mine": "x"}, (open_inference.Output("label", True),), True)


def with_raw(request, *raw):
    request.raw_input_contents.extend(raw)
    return request


REFUSED = {
    "raw for no input": (with_raw(ModelInferRequest(), b"x"), "one entry for each input, got 1 for 0"),
    "too few raw": (with_raw(ModelInferRequest(inputs=[{}, {}]), b"x"), "got 1 for 2"),
    "raw and typed": (with_raw(request_of("UINT8", uint_contents=[1, 2]), b"xx"), "one of them"),
    "nothing": (request_of("FP32"), "FP32 needs fp32_contents, got no contents"),
    "other contents": (request_of("UINT8", int_contents=[1, 2]), "uint_contents, got int_contents"),
    "two contents": (request_of("INT8", int_contents=[1, 2], bool_contents=[True]), "got bool_contents, int_contents"),
    "typed FP16": (request_of("FP16", fp32_contents=[1, 2]), "'FP16' has no typed contents"),
    "unknown datatype": (request_of("BF16", fp32_contents=[1, 2]), "'BF16' has no typed contents"),
    "beyond INT8": (request_of("INT8", int_contents=[128, 0]), "a number that INT8 cannot hold"),
    "beyond UINT16": (request_of("UINT16", uint_contents=[2**16, 0]), "a number that UINT16 cannot hold"),
    "too few values": (request_of("INT8", (3,), int_contents=[1, 2]), "needs 3 values, got 2"),
    "negative shape": (request_of("INT8", (-2,), int_contents=[1, 2]), "needs -2 values, got 2"),
    "overflowing shape": (request_of("INT8", (2**62, 2**62), int_contents=[1, 2]), "values, got 2"),
    "too many axes": (request_of("INT8", (2**62,) * 100_000, int_contents=[1, 2]), "100000 axes"),
}


@pytest.mark.parametrize(("request_", "detail"), REFUSED.values(), ids=REFUSED)
def test_a_message_that_contradicts_itself_is_refused(request_, detail):
    with pytest.raises(CallError) as caught:
        tensors.to_http(request_)
    assert caught.value.status == 400
    assert detail in caught.value.detail
