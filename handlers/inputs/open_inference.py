"""Open Inference Protocol (KServe v2): an inference request becomes examples.

Sources: the protocol's REST specification (kserve/open-inference-protocol, ``inference_rest.md``), and the extensions
for binary tensor data and classification (triton-inference-server/server, ``extension_binary_data.md`` and
``extension_classification.md``).

A request body is a JSON header, followed by the raw bytes of its tensor if the header declares them::

    body ──► header (JSON) ──► tensor: shape, datatype ──► values, from JSON or raw bytes ──► examples [N, *shape]

Models take one tensor. Errors, by class of ``handlers.problems``:

    Malformed      the header is not JSON or lacks a field, or the lengths contradict each other
    Unprocessable  a shape, datatype, value, or name of an output that the answer does not have
    TooLarge       more examples than ``handlers.limits`` allows

Images in a BYTES tensor raise the problems of ``handlers.inputs.images``. ``handlers.outputs.open_inference`` writes
the response.
"""

from __future__ import annotations

import base64
import functools
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from reprlib import repr as brief
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handlers import problems
from handlers.inputs import images, json_numbers, validation
from handlers.signature import Signature

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

# The binary form is little-endian on every machine.
DATATYPES: dict[str, np.dtype[Any]] = {
    f"{name}{8 * size}": np.dtype(f"<{name[0].lower()}{size}")
    for name, sizes in {"UINT": (1, 2, 4, 8), "INT": (1, 2, 4, 8), "FP": (2, 4, 8)}.items()
    for size in sizes
}
OUTPUT_NAMES = {
    "softmax": ("probabilities", "class", "label"),
    "sigmoid": ("probabilities",),
    "none": ("values",),
}
# An output of models with references (handlers.outputs.ood) that is computed only if the request names it.
OOD_OUTPUT_NAME = "ood"
EXPLANATION_OUTPUT_NAMES = ("attributions", "target")
# Of at most 64 bits.
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class Output(NamedTuple):
    """One output tensor of the response.

    Attributes:
        name: one of ``OUTPUT_NAMES`` or ``EXPLANATION_OUTPUT_NAMES``, or ``OOD_OUTPUT_NAME``.
        binary: it follows the JSON as raw bytes.
        classes: the number of most probable labels to return as text in place of the numbers; 0: the numbers.
    """

    name: str
    binary: bool
    classes: int = 0


class _Tensor(NamedTuple):
    """A request's input, as its JSON describes it.

    Attributes:
        datatype: the caller's text.
        shape: at most ``json_numbers.MAX_AXES`` lengths of at least 0; the first may be -1.
        data: the value of its member ``data``; ``None`` without one.
        size: the value of its parameter ``binary_data_size``; ``None`` without one.
        is_base64: its images are base64 in binary data, as MLServer's codec of this name sends them.
        may_hold_booleans: false if the JSON holds neither ``true`` nor ``false``.
    """

    datatype: str
    shape: list[int]
    data: Any
    size: Any
    is_base64: bool
    may_hold_booleans: bool


class Request(NamedTuple):
    """The parts of a request that shape its response.

    Attributes:
        id: the caller's identifier, or empty.
        parameters: the caller's parameters, without those that the protocol itself defines.
        requested: the tensors to return, in this order; empty: all. Which names exist depends on the task, see
            ``outputs``.
        binary: whether tensors follow the JSON as raw bytes if ``requested`` is empty.
    """

    id: str
    parameters: dict[str, Any]
    requested: tuple[Output, ...]
    binary: bool


def read_json_length(header: str | None) -> int | None:
    """Read the value of the ``Inference-Header-Content-Length`` header; ``None`` if the request has none.

    Raises:
        problems.Malformed: the value is not a number of bytes.
    """
    if header is None:
        return None
    # isdecimal() alone accepts digits of other scripts.
    if not (header.isascii() and header.isdecimal() and len(header) < 16):
        raise problems.Malformed(f"{JSON_LENGTH_HEADER} must be a number of bytes, got {header[:40]!r}")
    return int(header)


def parse(
    body: images.Body, json_length: int | None, signature: Signature, decoder: images.Decoder | None = None
) -> tuple[NDArray[Any], Request]:
    """Read an inference request.

    Args:
        body: the whole HTTP body.
        json_length: bytes of JSON at the body's start. ``None``: all of the body is JSON. 0: all of it is the tensor in
            the datatype and shape of the model's metadata (Triton's raw binary request), and every output is binary.
        signature: the model's contract.
        decoder: of the request's images, for those in a BYTES tensor.

    Returns:
        The examples, as in ``validation.Examples.values``, possibly sharing the body's memory; and the request.

    Raises:
        problems.Problem: as in the module's table.
    """
    if json_length == 0:
        return _raw(body, signature)
    decoder = decoder or images.Decoder(resize=signature.input.resize)
    if json_length is not None and json_length > len(body):
        raise problems.Malformed(f"{JSON_LENGTH_HEADER} is {json_length}, but the body has only {len(body)} bytes")
    view = memoryview(body)
    json_length = len(body) if json_length is None else json_length
    # bytes() of bytes makes no copy, which matters for a body that is all JSON and large.
    header = bytes(body if json_length == len(body) else view[:json_length])
    binary = view[json_length:]
    parse_header = _cached_header if json_length <= _CACHED_HEADER_BYTES else _header
    tensor, request = parse_header(header)
    if tensor.size is None:
        if binary:
            raise problems.Malformed(
                f"the body has {len(binary)} bytes after the JSON, but the input has no binary_data_size"
            )
        return _from_json(tensor, signature, decoder), request
    if type(tensor.size) is not int or tensor.size != len(binary):
        raise problems.Malformed(f"binary_data_size is {brief(tensor.size)}, but {len(binary)} bytes follow the JSON")
    if tensor.data is not None:
        raise problems.Malformed("the input has both data and binary_data_size; send only one of them")
    return _from_binary(binary, tensor, signature, decoder), request


def outputs(request: Request, names: tuple[str, ...]) -> tuple[Output, ...]:
    """The tensors of the response.

    Args:
        request: as ``parse`` returned it.
        names: of the outputs that the task has: ``EXPLANATION_OUTPUT_NAMES``, or the model's of ``OUTPUT_NAMES`` and
            ``OOD_OUTPUT_NAME``.

    Raises:
        problems.Unprocessable: the task has no output of a requested name.
    """
    return _outputs(request.requested, request.binary, names)


# Most requests repeat the same outputs.
@functools.lru_cache(maxsize=256)
def _outputs(requested: tuple[Output, ...], binary: bool, names: tuple[str, ...]) -> tuple[Output, ...]:
    for name, *_ in requested:
        if name not in names:
            raise problems.Unprocessable(f"unknown output {name[:40]!r}; the answer has {', '.join(names)}")
    return requested or tuple(Output(name, binary) for name in names if name != OOD_OUTPUT_NAME)


# --- The JSON header ---


def _header(header: bytes) -> tuple[_Tensor, Request]:
    """Parse a request's JSON into its only input and the request."""
    document = json_numbers.load(header)
    if type(document) is not dict:
        got = json_numbers.type_name(document)
        raise problems.Malformed(f'an inference request must be a JSON object {{"inputs": [...]}}, got {got}')
    inputs = document.get("inputs")
    if type(inputs) is not list:
        raise problems.Malformed(
            f"the request's inputs must be a list of tensors, got {json_numbers.type_name(inputs)}"
        )
    if len(inputs) != 1:
        raise problems.Unprocessable(f"the model takes one input tensor, got {len(inputs)}")
    tensor = inputs[0]
    if type(tensor) is not dict:
        raise problems.Malformed(f"an input must be an object, got {brief(tensor)}")
    _field(tensor, "name", str)
    parameters = _parameters(tensor)
    return _Tensor(
        _field(tensor, "datatype", str),
        _shape(tensor),
        tensor.get("data"),
        parameters.get("binary_data_size"),
        parameters.get("content_type") == "base64",
        b"true" in header or b"false" in header,
    ), _request(document)


# Clients that send binary tensors mostly repeat the same JSON, so its parsed form is cached. Longer texts hold tensors
# themselves, and would fill the memory.
_CACHED_HEADER_BYTES = 512
_cached_header = functools.lru_cache(maxsize=256)(_header)


def _field(tensor: dict[str, Any], name: str, kind: type) -> Any:
    value = tensor.get(name)
    if type(value) is not kind:
        got = brief(value) if name in tensor else "none"
        raise problems.Malformed(f"the input's {name} must be a {'string' if kind is str else 'list'}, got {got}")
    return value


def _shape(tensor: dict[str, Any]) -> list[int]:
    """The tensor's shape. KServe's samples have a lone -1 for a list of one; protobuf's JSON has integers as text."""
    lone = tensor.get("shape")
    entries = [lone] if type(lone) is int else _field(tensor, "shape", list)
    # The product of a long list of large numbers would take minutes.
    if len(entries) > json_numbers.MAX_AXES:
        raise problems.Unprocessable(f"shape must have at most {json_numbers.MAX_AXES} axes, got {len(entries)}")
    lengths: list[int] = []
    for length in map(_integer, entries):
        # A first length of -1 leaves it to the server.
        if type(length) is not int or length < (0 if lengths else -1):
            raise problems.Unprocessable(
                f"shape must hold whole numbers of at least 0, only the first may be -1, got {brief(entries)}"
            )
        lengths.append(length)
    return lengths


def _data(tensor: _Tensor) -> list[Any]:
    """The tensor's data. KServe's samples have one string for a list of one; protobuf's JSON has integers as text."""
    data = tensor.data
    if type(data) is str:
        return [data]
    if type(data) is not list:
        got = "none" if data is None else brief(data)
        raise problems.Malformed(f"the input's data must be a list, got {got}")
    if data and type(data[0]) is str and tensor.datatype in ("INT64", "UINT64"):
        return [_integer(value) for value in data]
    return data


def _integer(value: Any) -> Any:
    """A whole number from its text; other values unchanged."""
    return int(value) if type(value) is str and _INTEGER.fullmatch(value) else value


def _parameters(owner: dict[str, Any]) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise problems.Malformed(f"parameters must be an object, got {brief(parameters)}")
    for value in parameters.values():
        if not isinstance(value, (str, int, float)):
            raise problems.Malformed(f"values of parameters must be strings, numbers or booleans, got {brief(value)}")
    return parameters


def _request(document: dict[str, Any]) -> Request:
    identifier = document.get("id")
    if identifier is None:
        identifier = ""
    if type(identifier) is not str:
        raise problems.Malformed(f"id must be a string, got {brief(identifier)}")
    parameters = _parameters(document)
    binary = _flag(parameters, "binary_data_output", False)
    parameters = {name: value for name, value in parameters.items() if name != "binary_data_output"}
    requested = document.get("outputs")
    # Triton's clients send an empty list for "all".
    if not requested and (requested is None or requested == []):
        return Request(identifier, parameters, (), binary)
    if type(requested) is not list:
        raise problems.Malformed(f"outputs must be a list of objects with a name, got {brief(requested)}")
    chosen: dict[str, Output] = {}
    for output in requested:
        name = output.get("name") if type(output) is dict else None
        if type(name) is not str:
            raise problems.Malformed(f"a requested output must be an object with a name, got {brief(output)}")
        if name in chosen:
            raise problems.Unprocessable(f"output {brief(name)} is requested twice")
        options = _parameters(output)
        # Ignored, it would give the caller another answer than requested.
        if "shared_memory_region" in options:
            raise problems.Unprocessable(
                f"output {brief(name)}: shared memory is not supported; leave out the parameter shared_memory_region"
            )
        chosen[name] = Output(name, _flag(options, "binary_data", binary), _classes(options, name))
    return Request(identifier, parameters, tuple(chosen.values()), binary)


def _classes(parameters: dict[str, Any], name: str) -> int:
    """The parameter of Triton's classification extension, which its clients call ``class_count``; 0 without it."""
    count = parameters.get("classification")
    if count is None:
        return 0
    if type(count) is not int or count < 1:
        raise problems.Unprocessable(f"the parameter classification must be a whole number from 1, got {brief(count)}")
    if name != "probabilities":
        raise problems.Unprocessable(
            "the parameter classification is for the output probabilities of predictions, "
            f"got it for {name[:40]!r}; request that output"
        )
    return count


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise problems.Malformed(f"the parameter {name} must be true or false, got {brief(value)}")
    return value


# --- The input tensor ---


def native_datatype(signature: Signature) -> str:
    """The datatype of the model's input tensor in metadata and in raw binary requests."""
    return "UINT8" if signature.input.kind == "image" else "FP32"


def _raw(body: images.Body, signature: Signature) -> tuple[NDArray[Any], Request]:
    dtype = DATATYPES[native_datatype(signature)]
    size = signature.input.example_bytes
    count, rest = divmod(len(body), size)
    if rest or not count:
        raise problems.Malformed(f"a raw binary request must be a multiple of {size} bytes, got {len(body)}")
    values = np.frombuffer(body, dtype).reshape(count, *signature.input.shape)
    return validation.from_array(values, signature).values, Request("", {}, (), True)


def _from_binary(binary: memoryview, tensor: _Tensor, signature: Signature, decoder: images.Decoder) -> NDArray[Any]:
    datatype = tensor.datatype
    if datatype == "BYTES" and signature.input.kind == "image":
        files = _elements(binary, signature)
        shape = _counted(tensor.shape, len(files))
        return _pictures(map(_base64, files) if tensor.is_base64 else files, shape, signature, decoder)
    dtype = _numeric(datatype, signature)
    count, rest = divmod(len(binary), dtype.itemsize)
    if rest:
        raise problems.Malformed(f"data of {datatype} must be a multiple of {dtype.itemsize} bytes, got {len(binary)}")
    return _shaped(np.frombuffer(binary, dtype), _counted(tensor.shape, count), signature)


def _from_json(tensor: _Tensor, signature: Signature, decoder: images.Decoder) -> NDArray[Any]:
    datatype = tensor.datatype
    flat = _flatten(_data(tensor), tensor.shape)
    shape = _counted(tensor.shape, len(flat))
    if datatype == "UINT8" and not tensor.may_hold_booleans:
        # Other values are refused below.
        with suppress(TypeError, ValueError):
            return _shaped(np.frombuffer(bytes(flat), np.uint8), shape, signature)
    kinds = set(map(type, flat))
    if datatype == "BYTES" and signature.input.kind == "image":
        if kinds != {str}:
            raise problems.Unprocessable("data of BYTES must hold images as base64 strings")
        return _pictures(map(_base64, flat), shape, signature, decoder)
    dtype = _numeric(datatype, signature)
    if not kinds <= ({int, float} if dtype.kind == "f" else {int}):
        raise problems.Unprocessable(
            f"data of {datatype} must hold only {'' if dtype.kind == 'f' else 'whole '}numbers"
        )
    try:
        # A number beyond a float datatype becomes infinite and is refused later, so numpy's warning is not needed.
        with np.errstate(over="ignore"):
            values = np.array(flat, dtype)
    except OverflowError:
        raise problems.Unprocessable(f"data holds a number beyond the range of {datatype}") from None
    return _shaped(values, shape, signature)


def _numeric(datatype: str, signature: Signature) -> np.dtype[Any]:
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        accepted = [*DATATYPES, *(["BYTES"] if signature.input.kind == "image" else [])]
        raise problems.Unprocessable(f"datatype {datatype[:40]!r} is not supported; send one of {', '.join(accepted)}")
    return dtype


def _counted(shape: list[int], count: int) -> list[int]:
    """Check that a tensor of ``count`` elements has this shape, and return it without -1."""
    lengths = shape
    if shape and shape[0] == -1:
        lengths = [count // max(1, math.prod(shape[1:])), *shape[1:]]
    if math.prod(lengths) != count:
        raise problems.Malformed(f"shape {brief(shape)} needs {math.prod(lengths)} elements, but data has {count}")
    return lengths


def _shaped(flat: NDArray[Any], shape: list[int], signature: Signature) -> NDArray[Any]:
    # numpy cannot reshape to an empty array with huge axes.
    if not flat.size:
        raise problems.Unprocessable(
            f"shape {brief(shape)} does not fit this model; send {validation.accepted_shapes(signature)}"
        )
    return validation.from_array(flat.reshape(shape), signature).values


def _flatten(data: list[Any], shape: list[int]) -> list[Any]:
    """The values of ``data``, which must be flat, or nested exactly as ``shape`` declares."""
    if not data or type(data[0]) is not list:
        return data
    level = [data]
    for length in shape:
        for row in level:
            if type(row) is not list or len(row) != length != -1:
                raise problems.Malformed(f"data must be flat or nested as its shape {brief(shape)} declares")
        level = list(chain.from_iterable(level))
    return level


# --- Images as elements of a BYTES tensor ---


def _pictures(
    files: Iterable[images.Body], shape: list[int], signature: Signature, decoder: images.Decoder
) -> NDArray[np.uint8]:
    """Decode the files of a tensor in turn, so that only one at a time is in memory at its full size."""
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise problems.Unprocessable(f"shape {brief(shape)} does not fit images as BYTES; send [N] or [N, 1]")
    validation.check_count(shape[0], signature)
    pictures = np.empty((shape[0], *signature.input.shape), np.uint8)
    for index, file in enumerate(files):
        pictures[index] = decoder.decode(file, signature.input.shape)
    return pictures


def _elements(binary: memoryview, signature: Signature) -> list[memoryview]:
    """Split a binary BYTES tensor into its elements; each is its length as 4 bytes, then that many bytes."""
    elements: list[memoryview] = []
    at, end = 0, len(binary)
    while at < end:
        # A body of empty elements would fill the memory.
        validation.check_count(len(elements) + 1, signature)
        start = at + 4
        at = start + int.from_bytes(binary[at:start], "little")
        if start > end or at > end:
            raise problems.Malformed(
                f"element {len(elements)} of the BYTES tensor ends beyond the body; each element must be a 4-byte "
                "length and that many bytes"
            )
        elements.append(binary[start:at])
    return elements


def _base64(text: str | memoryview) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise problems.Malformed("data of BYTES holds a string that is not valid base64") from None
