"""Tensors between the two forms of the Open Inference Protocol: protobuf messages, and JSON followed by raw bytes.

This module checks only that a message does not contradict itself. The model's handler checks everything else, as for
requests over HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson

from serving.errors import CallError
from serving.sidecars.grpc.proto.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)

# Datatype → its field of InferTensorContents, and its numpy dtype as raw bytes.
_TYPED = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    # As raw bytes, each element is preceded by its length.
    "BYTES": ("bytes_contents", ""),
}
# The type of a parameter's value in JSON → its field of InferParameter. Integers from 2**63 on use uint64_param.
_PARAMETERS = {bool: "bool_param", str: "string_param", float: "double_param", int: "int64_param"}
# Without a limit, the product of a shape with many large numbers would take minutes. Models have at most three axes.
_MAX_AXES = 8
# Not passed on, because the bridge itself chooses binary tensors.
_BINARY_PARAMETERS = ("binary_data", "binary_data_output", "binary_data_size")


def is_raw(request: ModelInferRequest) -> bool:
    """Whether a request has its tensors as raw bytes; the answer uses the same form."""
    return bool(request.raw_input_contents) or not any(tensor.HasField("contents") for tensor in request.inputs)


def to_http(request: ModelInferRequest) -> tuple[bytes, int]:
    """Write a request as an HTTP body with binary tensors, with a request for binary outputs.

    Returns:
        The body, and the number of bytes of JSON at its start.

    Raises:
        CallError: 400, because the message contradicts itself.
    """
    for tensor in request.inputs:
        if len(tensor.shape) > _MAX_AXES:
            raise _refused(f"input {tensor.name[:40]!r} has {len(tensor.shape)} axes; send at most {_MAX_AXES}")
    contents = _contents(request)
    document: dict[str, Any] = {
        "id": request.id,
        "parameters": {**_values(request.parameters), "binary_data_output": True},
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {**_values(tensor.parameters), "binary_data_size": len(raw)},
            }
            for tensor, raw in zip(request.inputs, contents, strict=True)
        ],
    }
    if request.outputs:
        document["outputs"] = [
            {"name": output.name, "parameters": _values(output.parameters)} for output in request.outputs
        ]
    header = orjson.dumps(document)
    return b"".join((header, *contents)), len(header)


def from_http(body: bytes, json_length: int, raw: bool) -> ModelInferResponse:
    """Read an HTTP answer with binary tensors.

    Args:
        body: JSON and the tensors.
        json_length: number of bytes of JSON at its start.
        raw: return the tensors as raw bytes instead of lists of numbers.
    """
    document = orjson.loads(body[:json_length])
    response = ModelInferResponse(
        model_name=document["model_name"], model_version=document["model_version"], id=document["id"]
    )
    _set_parameters(response.parameters, document.get("parameters", {}))
    start = json_length
    for described in document["outputs"]:
        output = response.outputs.add(name=described["name"], datatype=described["datatype"], shape=described["shape"])
        end = start + described["parameters"]["binary_data_size"]
        if raw:
            response.raw_output_contents.append(body[start:end])
        else:
            output.contents.CopyFrom(_typed(described["datatype"], body[start:end]))
        start = end
    return response


def _refused(detail: str) -> CallError:
    return CallError(400, detail)


def _contents(request: ModelInferRequest) -> list[bytes]:
    """The raw bytes of each input."""
    if not request.raw_input_contents:
        return [_raw(tensor) for tensor in request.inputs]
    if len(request.raw_input_contents) != len(request.inputs):
        raise _refused(
            f"raw_input_contents must have one entry for each input, got {len(request.raw_input_contents)} for "
            f"{len(request.inputs)} inputs",
        )
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise _refused(
                f"input {tensor.name[:40]!r} has contents and raw_input_contents; send only one of them",
            )
    return list(request.raw_input_contents)


def _raw(tensor: ModelInferRequest.InferInputTensor) -> bytes:
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    field, dtype = _TYPED.get(tensor.datatype, ("", ""))
    if not field:
        raise _refused(f"datatype {tensor.datatype[:40]!r} has no typed contents; send it as raw_input_contents")
    if filled != [field]:
        got = ", ".join(filled) or "no contents"
        raise _refused(f"datatype {tensor.datatype} needs {field}, got {got}")
    values = getattr(tensor.contents, field)
    if tensor.datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    count = math.prod(tensor.shape)
    # Checked here, because the handler would report a number of bytes, and this caller sent numbers. The handler fills
    # in a length of -1.
    if -1 not in tensor.shape and count != len(values):
        raise _refused(f"shape {list(tensor.shape)} needs {count} values, got {len(values)}")
    try:
        # From a list, because numpy does not check the range of numbers in protobuf's own containers.
        return np.array(list(values), dtype).tobytes()
    except OverflowError:
        raise _refused(f"{field} has a number that {tensor.datatype} cannot hold") from None


def _typed(datatype: str, raw: bytes) -> InferTensorContents:
    if datatype == "BYTES":
        return InferTensorContents(bytes_contents=_elements(raw))
    field, dtype = _TYPED[datatype]
    return InferTensorContents(**{field: np.frombuffer(raw, dtype).tolist()})


def _elements(raw: bytes) -> Iterable[bytes]:
    end = 0
    while end < len(raw):
        start = end + 4
        end = start + int.from_bytes(raw[end:start], "little")
        yield raw[start:end]


def _values(parameters: Mapping[str, InferParameter]) -> dict[str, Any]:
    values = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None and name not in _BINARY_PARAMETERS:
            values[name] = getattr(parameter, choice)
    return values


def _set_parameters(parameters: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = "uint64_param" if type(value) is int and value >= 2**63 else _PARAMETERS[type(value)]
        setattr(parameters[name], field, value)
