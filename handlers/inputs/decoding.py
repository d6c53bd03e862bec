"""A request's bytes become examples.

    parts, content types ──► format (named, or recognized) ──► array ──► handlers.inputs.validation ──► Decoded

Formats, by content type:

    image/*                             one PNG, JPEG, HEIC, AVIF, WebP, GIF, TIFF or BMP file
    application/octet-stream            raw values, one example after another: uint8 pixels, or little-endian float32
                                        features; image and .npy files are recognized by their first bytes
    application/x-npy                   one array
    application/json, */*+json          a list of numbers, base64 images, {"instances": …} (KServe v1), {"inputs": …} of
                                        tensors (Open Inference Protocol, handlers.inputs.open_inference), or of
                                        examples (TensorFlow Serving's columns, Hugging Face)
    multipart/form-data                 parts of the formats above, in order
    text/*, application/x-www-form-urlencoded (curl -d), none
                                        recognized by content

Every error is one of ``handlers.problems``, never another exception.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from handlers import limits, problems
from handlers.inputs import (
    foreign_files,
    image_headers,
    images,
    json_numbers,
    multipart,
    npy,
    open_inference,
    validation,
)
from handlers.inputs.multipart import Part
from handlers.signature import Signature

Body = bytes | bytearray
Kind = Literal["octets", "image", "json", "npy", "form", "multipart", "text", "none", "unknown"]

_NUMBERS = "JSON, raw little-endian float32 as application/octet-stream, or application/x-npy"
ACCEPTED = {
    "image": "an image (PNG, JPEG, HEIC, AVIF, WebP, GIF, TIFF, BMP), raw uint8 pixels as application/octet-stream, "
    "application/x-npy, JSON, or multipart/form-data of these",
    "vector": _NUMBERS,
    "tensor": _NUMBERS,
}

# Member names that wrap one example in a JSON object, in KServe v1, TensorFlow Serving and TorchServe's examples.
_WRAPPERS = ("b64", "image", "image_bytes", "data", "features")
# The members of a tensor of the Open Inference Protocol.
_TENSOR = {"name", "shape", "datatype"}
_TENSOR_REQUEST = (b'"inputs"', b'"datatype"')
# The first characters of a PNG, JPEG, GIF, WebP or TIFF file in base64.
_BASE64_STARTS = (b"iVBORw0K", b"/9j/", b"R0lGOD", b"UklGR", b"SUkqA", b"TU0AK")
# The characters 5 to 10 of a HEIC or AVIF file in base64, whose first ones hold the length of its first box.
_BASE64_BOX = b"GZ0eXB"
# Text may also start with those of BMP, which are too few to tell base64 from raw pixels, and with a data: URL.
_BASE64_TEXT_STARTS = (b"Qk", b"data:image/")
# Numbers, texts or objects in a list, or an object. Raw pixels hardly ever start like this.
_JSON_START = re.compile(rb'(?:\[\s*)+[-0-9"{]|\{\s*"')
# HEIC and AVIF are missing: they start with a zero, as most raw pixels do. ``pictures`` would take such a file for raw
# pixels only if it were called application/octet-stream and as long as one image, to the byte.
_TEXT_FIRST_BYTES = frozenset(b"i/RUSTA[{")
_FILE_STARTS = image_headers.FIRST_BYTES | foreign_files.FIRST_BYTES | frozenset(npy.MAGIC[:1]) | _TEXT_FIRST_BYTES
_INSTANCES = re.compile(rb'"(instances|inputs)"\s*:')
_OBJECT = re.compile(rb"\s*\{")
# After a list that is a member of an object: the next member, or the object's end.
_LIST_END = re.compile(rb'\s*(?:,\s*)?["}]')
# A short string in place of a long list of numbers, so that the rest of its object can be parsed without the list.
_LIST_PLACEHOLDER = "the list"
_ONE_AS_INSTANCES = '"instances" must be a list of examples, got one example; put it in a list'
# White space of more than a kilobyte before or after a text does not occur in practice.
_EDGE_BYTES = 1024
_JSON_ENDS = {ord("["): ord("]"), ord("{"): ord("}"), ord('"'): ord('"')}


class Decoded(NamedTuple):
    """A request's examples, and the form of its answer.

    Attributes:
        values: as in ``validation.Examples``.
        single: answer with one object instead of a list.
        envelope: ``plain``, ``predictions`` (KServe v1), or the Open Inference Protocol's request.
        photographs, has_converted: as of ``images.Decoder``.
    """

    values: NDArray[Any]
    single: bool
    envelope: Literal["plain", "predictions"] | open_inference.Request = "plain"
    photographs: Mapping[bytes, Image.Image] = MappingProxyType({})
    has_converted: bool = False

    def outlines(self) -> dict[int, Image.Image]:
        """The outlines of the examples that are photographs, by their places in ``values``."""
        if not self.photographs:
            return {}
        # Beside an array of numbers, pixels are no bytes.
        keys = [pixels.tobytes() for pixels in self.values.astype(np.uint8)]
        return {index: self.photographs[key] for index, key in enumerate(keys) if key in self.photographs}


def decode(
    parts: Sequence[Part],
    signature: Signature,
    prepare: images.Prepare = "auto",
    json_length: int | None = None,
) -> Decoded:
    """Decode one request.

    Args:
        parts: the request's body, or the parts of its multipart body, in order.
        signature: the model's contract.
        prepare: how images are converted, see ``images.decode``.
        json_length: the value of ``Inference-Header-Content-Length``, if the request has one.

    Raises:
        problems.Problem: the request cannot be decoded.
    """
    decoder = images.Decoder(prepare, signature.input.resize)
    decoded = _decode_parts(parts, signature, decoder, json_length)
    if not decoder.has_converted:
        return decoded
    return decoded._replace(photographs=decoder.photographs, has_converted=True)


def _decode_parts(
    parts: Sequence[Part], signature: Signature, decoder: images.Decoder, json_length: int | None
) -> Decoded:
    if len(parts) == 1 and kind_of(parts[0].content_type) != "multipart":
        if json_length is None:
            return _decode(parts[0], signature, decoder)
        return _inference(parts[0].body, json_length, signature, decoder)
    if json_length is not None:
        raise problems.Malformed(
            f"{open_inference.JSON_LENGTH_HEADER} needs a single body, got multipart/form-data; remove the header"
        )
    return _parts(multipart.split(*parts[0][:2]) if len(parts) == 1 else parts, signature, decoder)


def pictures(bodies: Sequence[Body], content_type: str, signature: Signature) -> NDArray[np.uint8] | None:
    """Decode plain images of one content type, all at once.

    Args:
        bodies: each the only part of its request.
        content_type: of each body.
        signature: the model's contract.

    Returns:
        uint8 ``[N, *shape]``, the same values as ``decode`` returns for each body. ``None`` unless every body is the
        raw pixels of one image, an array of one in uint8 behind the same header, or a file that ``images.bare_png``
        reads.
    """
    if signature.input.kind != "image":
        return None
    shape = signature.input.shape
    kind = kind_of(content_type)
    if kind == "octets" and {signature.input.example_bytes}.issuperset(map(len, bodies)):
        # The first byte of most images cannot start a file, so that the full check is rarely needed.
        if not _FILE_STARTS.isdisjoint([body[0] for body in bodies]) and any(map(_is_file, bodies)):
            return None
        return np.frombuffer(bytearray().join(bodies), np.uint8).reshape(-1, *shape)
    if kind == "image" and len(shape) == 2:
        decoded = []
        for body in bodies:
            pixels = images.bare_png(body, shape)
            if pixels is None:
                return None
            decoded.append(pixels)
        return np.stack(decoded)
    if kind == "npy":
        return _arrays(bodies, signature)
    return None


def _arrays(bodies: Sequence[Body], signature: Signature) -> NDArray[np.uint8] | None:
    """Arrays of one uint8 image each, if their headers are the same bytes."""
    shape, size = signature.input.shape, signature.input.example_bytes
    header = bytes(bodies[0][:-size])
    if {len(header) + size} != set(map(len, bodies)) or not all(body.startswith(header) for body in bodies):
        return None
    try:
        first = npy.read(bodies[0])
    except problems.Problem:
        return None
    if first.dtype != np.uint8 or first.shape != shape or not first.flags.c_contiguous:
        return None
    joined = np.frombuffer(bytearray().join(bodies), np.uint8)
    return joined.reshape(len(bodies), -1)[:, len(header) :].reshape(-1, *shape)


def _parts(parts: Iterable[Part], signature: Signature, decoder: images.Decoder) -> Decoded:
    decoded: list[Decoded] = []
    ignored: problems.Problem = problems.Malformed(f"the form is empty; send {ACCEPTED[signature.input.kind]}")
    count = 0
    for number, part in enumerate(parts, 1):
        try:
            decoded.append(_decode(part, signature, decoder))
        except problems.Problem as problem:
            name = f" ({part.name[:40]})" if part.name else ""
            refused = type(problem)(f"part {number} of the form{name}: {problem.detail}")
            if not part.optional or (part.body and type(problem) is not problems.UnsupportedFormat):
                raise refused from None
            # Such as a comment, or the value of a button.
            ignored = refused
            continue
        count += len(decoded[-1].values)
        validation.check_count(count, signature)
    if not decoded:
        raise ignored
    if len(decoded) == 1:
        return decoded[0]
    if not all(part.envelope == "plain" for part in decoded):
        raise problems.Unprocessable(
            'a form of several parts cannot hold {"instances": …} or {"inputs": …}; send that JSON as the body'
        )
    return Decoded(np.concatenate([part.values for part in decoded]), False)


def _decode(part: Part, signature: Signature, decoder: images.Decoder) -> Decoded:
    body, content_type = part.body, part.content_type
    if not body:
        raise problems.Malformed(f"the body is empty; send {ACCEPTED[signature.input.kind]}")
    kind = kind_of(content_type)
    # Whatever its type: many programs make one up, and no other format starts like an image file.
    if kind == "image" or image_headers.sniff(body):
        return _image(body, signature, decoder)
    if kind == "npy" or body.startswith(npy.MAGIC):
        return _array(npy.read(body), signature)
    if kind == "json":
        return _json(body, signature, decoder)
    if kind == "octets":
        return _by_content(body, "text", signature, decoder) if _is_text(body) else _octets(body, signature)
    if kind in ("multipart", "unknown"):
        refusal = foreign_files.refusal(body) or f"content type {content_type[:80]!r} is not supported"
        raise problems.UnsupportedFormat(f"{refusal}; send {ACCEPTED[signature.input.kind]}")
    return _by_content(body, kind, signature, decoder)


@functools.lru_cache(maxsize=256)
def kind_of(content_type: str) -> Kind:
    """The kind of body that a content type declares; its parameters are ignored."""
    name = content_type.partition(";")[0].strip().lower()
    if name == "application/octet-stream":
        return "octets"
    if name.startswith("image/"):
        return "image"
    if name == "application/json" or name.endswith("+json"):
        return "json"
    if name in (npy.CONTENT_TYPE, "application/npy"):
        return "npy"
    if name == multipart.URL_ENCODED:
        return "form"
    if name.startswith(multipart.CONTENT_TYPE):
        return "multipart"
    if name.startswith("text/"):
        return "text"
    return "unknown" if name else "none"


def _by_content(body: Body, kind: Kind, signature: Signature, decoder: images.Decoder) -> Decoded:
    # The two ends only, because the whole body may be large.
    head, tail = bytes(body[:_EDGE_BYTES]).lstrip(), bytes(body[-_EDGE_BYTES:]).rstrip()
    # By the first byte alone, raw pixels that start with 91 would be a list.
    if head.startswith(json_numbers.BYTE_ORDER_MARK) or (head and tail and _JSON_ENDS.get(head[0]) == tail[-1]):
        return _json(body, signature, decoder)
    is_base64 = _is_base64(head) or head.startswith(_BASE64_TEXT_STARTS)
    if is_base64 and not (kind == "form" and b"%" in body):
        if len(body) > limits.JSON_BYTES:
            raise problems.TooLarge(
                f"the base64 text is too long ({len(body)} bytes, limit {limits.JSON_BYTES}); send the file itself"
            )
        return _base64(body.decode("latin-1"), signature, decoder)
    if kind == "none" and len(body) % signature.input.example_bytes == 0:
        return _octets(body, signature)
    if kind == "form" and len(body) <= limits.JSON_BYTES:
        with suppress(problems.UnsupportedFormat):
            return _parts(multipart.split_url_encoded(body), signature, decoder)
    hint = "; curl sends a file unchanged with --data-binary, not with -d" if kind == "form" else ""
    refusal = foreign_files.refusal(body) or "unrecognized content"
    raise problems.UnsupportedFormat(
        f"{refusal}; send {ACCEPTED[signature.input.kind]}{'' if hint in refusal else hint}"
    )


def _array(values: NDArray[Any], signature: Signature) -> Decoded:
    return Decoded(*validation.from_array(values, signature))


def _is_file(body: Body) -> bool:
    if image_headers.sniff(body) or body.startswith(npy.MAGIC) or foreign_files.kind(body):
        return True
    return _is_text(body)


def _is_text(body: Body) -> bool:
    """Whether a body without a type of its own is base64 or JSON."""
    if not body or body[0] not in _TEXT_FIRST_BYTES:
        return False
    return (_is_base64(body) or _JSON_START.match(body[:_EDGE_BYTES]) is not None) and body.isascii()


def _is_base64(body: Body) -> bool:
    return body.startswith(_BASE64_STARTS) or body[5:11] == _BASE64_BOX


def _octets(body: Body, signature: Signature) -> Decoded:
    expected = signature.input
    if expected.kind == "image" and (refusal := foreign_files.refusal(body)):
        raise problems.UnsupportedFormat(f"{refusal}; send {ACCEPTED['image']}")
    datatype = np.dtype(np.uint8 if expected.kind == "image" else "<f4")
    count, rest = divmod(len(body), expected.example_bytes)
    if rest:
        raise problems.Unprocessable(
            f"raw values must be a multiple of {expected.example_bytes} bytes "
            f"({'x'.join(map(str, expected.shape))} {datatype}), got {len(body)} bytes"
        )
    validation.check_count(count, signature)
    values = np.frombuffer(body, datatype).reshape(count, *expected.shape)
    # Pixels need no check of their values: every byte is one.
    return Decoded(values if expected.kind == "image" else validation.from_array(values, signature).values, count == 1)


def _image(body: Body, signature: Signature, decoder: images.Decoder) -> Decoded:
    if signature.input.kind != "image":
        raise problems.UnsupportedFormat(f"this model takes no images; send {ACCEPTED[signature.input.kind]}")
    return Decoded(decoder.decode(body, signature.input.shape)[np.newaxis], True)


def _base64(text: str, signature: Signature, decoder: images.Decoder) -> Decoded:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    body = _from_base64(text)
    if body is None:
        # A form turns + into a space, mail and shells break lines, and URLs use - and _ and drop the = at the end.
        text = "".join(text.replace(" ", "+").split()).replace("-", "+").replace("_", "/").rstrip("=")
        body = _from_base64(text + "=" * (-len(text) % 4))
    if body is None:
        raise problems.Malformed("the string is not valid base64; send an image file in base64")
    return _image(body, signature, decoder)


def _from_base64(text: str) -> bytes | None:
    try:
        body = binascii.a2b_base64(text)
    except ValueError:
        return None
    # a2b_base64 skips characters that are not base64; the length shows whether it did.
    return body if len(body) == len(text) * 3 // 4 - text.count("=", -2) else None


def _inference(body: Body, json_length: int | None, signature: Signature, decoder: images.Decoder) -> Decoded:
    if json_length and json_length > limits.JSON_BYTES:
        raise problems.TooLarge(
            f"the inference request's JSON is too long ({json_length} bytes, limit {limits.JSON_BYTES}); "
            "send the tensor in binary form"
        )
    values, request = open_inference.parse(body, json_length, signature, decoder)
    return Decoded(values, False, request)


def _json(text: Body, signature: Signature, decoder: images.Decoder) -> Decoded:
    if len(text) > limits.JSON_PIECE_BYTES and (decoded := _long_json(text, signature)):
        return decoded
    # bytearray.removeprefix() would copy a text without the mark too.
    if text.startswith(json_numbers.BYTE_ORDER_MARK):
        text = text.removeprefix(json_numbers.BYTE_ORDER_MARK)
    # open_inference parses the text itself; this test keeps most requests from being parsed twice. It starts with a
    # single byte because finding a byte is many times faster than finding a word.
    is_request = b'"' in text and all(name in text for name in _TENSOR_REQUEST) and b'"instances"' not in text
    if is_request and _OBJECT.match(text):
        return _inference(text, None, signature, decoder)
    document = json_numbers.load(text)
    may_hold_booleans = b"e" in text and (b"true" in text or b"false" in text)
    reader = _JsonReader(signature, decoder, may_hold_booleans)
    if type(document) is dict:
        if "instances" in document:
            return Decoded(reader.instances(document["instances"]), False, "predictions")
        if "inputs" in document:
            if _are_tensors(document["inputs"]):
                return _inference(text, None, signature, decoder)
            return Decoded(reader.inputs(document["inputs"]), False, "predictions")
    return reader.examples(document)


def _are_tensors(inputs: Any) -> bool:
    """Whether the value of ``inputs`` is the Open Inference Protocol's, and not examples as other servers take them."""
    return type(inputs) is list and any(type(member) is dict and not _TENSOR.isdisjoint(member) for member in inputs)


def _long_json(text: Body, signature: Signature) -> Decoded | None:
    """Decode a long text of only numbers, bare or as a member of an object; ``None`` for any other text."""
    start = len(json_numbers.BYTE_ORDER_MARK) if text.startswith(json_numbers.BYTE_ORDER_MARK) else 0
    end = len(text)
    member = ""
    if _OBJECT.match(text, start):
        member_span = _long_member(text, start)
        if member_span is None:
            return None
        member, start, end = member_span
    limit = validation.example_limit(signature) * math.prod(signature.input.shape)
    values = json_numbers.from_text(text, start, end, signature.input.kind == "image", limit)
    if values is None:
        return None
    examples = validation.from_array(values, signature)
    if member == "instances" and examples.single:
        raise problems.Unprocessable(_ONE_AS_INSTANCES)
    return Decoded(examples.values, False, "predictions") if member else Decoded(*examples)


def _long_member(text: Body, start: int) -> tuple[str, int, int] | None:
    """The member ``instances`` or ``inputs`` of an object, if it is a list of numbers: its name, start and end."""
    # Another member may hold the same name.
    for match in itertools.islice(_INSTANCES.finditer(text, start), 4):
        first = match.end()
        # Numbers and lists hold none of these; the first one belongs to the next member, or ends the object.
        ends = [place for mark in (b'"', b"}") if (place := text.find(mark, first)) >= 0]
        last = text.rfind(b"]", first, min(ends)) + 1 if ends else 0
        if last and len(text) - (last - first) <= limits.JSON_PIECE_BYTES and _LIST_END.match(text, last):
            # The other members have no meaning here, but must be valid JSON.
            document = json_numbers.load(text[start:first] + orjson.dumps(_LIST_PLACEHOLDER) + text[last:])
            name = next((name for name in ("instances", "inputs") if name in document), "")
            if document.get(name) == _LIST_PLACEHOLDER:
                return name, first, last
    return None


class _JsonReader(NamedTuple):
    """Turns one parsed JSON document into examples."""

    signature: Signature
    decoder: images.Decoder
    may_hold_booleans: bool

    def instances(self, members: Any) -> NDArray[Any]:
        """The examples in the value of ``instances``: a list, each member one example."""
        if type(members) is not list:
            raise problems.Unprocessable(
                f'"instances" must be a list of examples, got {json_numbers.type_name(members)}'
            )
        validation.check_count(len(members), self.signature)
        if all(type(member) is list for member in members):
            examples = validation.from_array(self._numbers(members), self.signature)
            if examples.single:
                raise problems.Unprocessable(_ONE_AS_INSTANCES)
            return examples.values
        return self._joined(members)

    def inputs(self, value: Any) -> NDArray[Any]:
        """The examples in the value of ``inputs``: examples, or one column of them by the name of its input."""
        if type(value) is dict:
            if len(value) != 1:
                raise problems.Unprocessable(
                    f'the model takes one input, got {len(value)} in "inputs"; send {{"instances": [...]}}'
                )
            (value,) = value.values()
        return self.examples(value).values

    def examples(self, value: Any, is_member: bool = False) -> Decoded:
        """One example or a list of them: numbers, base64 strings or objects that hold one of these.

        Args:
            value: the parsed JSON.
            is_member: it is in such a list itself, and so must be one example.
        """
        if type(value) is list:
            # Lists in lists of objects could exhaust the stack.
            if value and type(value[0]) in (str, dict) and not is_member:
                validation.check_count(len(value), self.signature)
                return Decoded(self._joined(value), False)
            return _array(self._numbers(value), self.signature)
        if type(value) is str:
            return _base64(value, self.signature, self.decoder)
        if type(value) is dict:
            return self.examples(self._unwrapped(value), is_member)
        raise problems.Unprocessable(
            f"an example in JSON must be {self._expected()}, got {json_numbers.type_name(value)}"
        )

    def _joined(self, members: list[Any]) -> NDArray[Any]:
        decoded = [self.examples(member, is_member=True) for member in members]
        if not all(member.single for member in decoded):
            raise problems.Unprocessable("each member of the list must be one example, got several in one member")
        return np.concatenate([member.values for member in decoded])

    def _unwrapped(self, wrapper: Mapping[str, Any]) -> Any:
        for name in _WRAPPERS:
            if name in wrapper:
                value = wrapper[name]
                # {"image": {"b64": …}} is the deepest accepted wrapping.
                if type(value) is dict:
                    value = value.get("b64")
                if type(value) in (list, str):
                    return value
                raise problems.Unprocessable(
                    f'"{name}" must be {self._expected()}, got {json_numbers.type_name(wrapper[name])}'
                )
        names = ", ".join(map(repr, itertools.islice(wrapper, 5)))[:120]
        raise problems.Unprocessable(
            f'a JSON object needs "instances", "inputs" or one of {", ".join(_WRAPPERS)}, got {names or "none"}'
        )

    def _expected(self) -> str:
        shapes = validation.accepted_shapes(self.signature)
        return f"numbers of shape {shapes}" + (", or base64 images" if self.signature.input.kind == "image" else "")

    def _numbers(self, nested: list[Any]) -> NDArray[Any]:
        return json_numbers.from_list(nested, self.signature.input.kind == "image", self.may_hold_booleans)
