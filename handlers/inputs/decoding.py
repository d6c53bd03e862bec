"""A request's bytes become examples.

    parts, content types ──► format (named, or told by content) ──► array ──► handlers.inputs.validation ──► Decoded

Formats, by content type; an image's parameters are read, never trusted:

    image/*                             one PNG, JPEG, WebP, GIF or BMP file
    application/octet-stream            raw values, one example after another: uint8 pixels, or little-endian float32
                                        features; an image or .npy file is told by its first bytes
    application/x-npy                   one array
    application/json, */*+json          a list of numbers, base64 images, {"instances": …} (KServe v1), or
                                        {"inputs": …} (Open Inference Protocol, handlers.inputs.open_inference)
    multipart/form-data                 parts of the formats above, in order
    text/*, application/x-www-form-urlencoded (curl -d), none
                                        told by content

What goes wrong is one of ``handlers.problems``, never another exception.
"""

from __future__ import annotations

import binascii
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handlers import limits, problems
from handlers.inputs import image_headers, images, json_numbers, multipart, npy, open_inference, validation
from handlers.signature import Signature

Body = bytes | bytearray
Kind = Literal["octets", "image", "json", "npy", "form", "multipart", "text", "none", "unknown"]

ACCEPTED = {
    "image": "an image (PNG, JPEG, WebP, GIF, BMP), raw uint8 pixels as application/octet-stream, "
    "application/x-npy, JSON, or multipart/form-data of these",
    "vector": "JSON, raw little-endian float32 as application/octet-stream, or application/x-npy",
}
FORM = "application/x-www-form-urlencoded"

# The names under which people wrap one example in a JSON object: KServe v1, TensorFlow Serving, TorchServe's examples.
_WRAPPERS = ("b64", "image", "image_bytes", "data", "features")
# How base64 of a PNG, JPEG, GIF, WebP or BMP starts, and a data: URL.
_BASE64_STARTS = (b"iVBORw0K", b"/9j/", b"R0lGOD", b"UklGR", b"Qk", b"data:image/")
_FILE_STARTS = image_headers.FIRST_BYTES | {npy.MAGIC[0]}
_INSTANCES = re.compile(rb'\s*\{\s*"instances"\s*:')
_WHOLE_INSTANCES = 'each member of "instances" must be one whole example'
_JSON_ENDS = {ord("["): ord("]"), ord("{"): ord("}"), ord('"'): ord('"')}


class Part(NamedTuple):
    """One body, or one part of a multipart body: its bytes and its content type (empty if it has none)."""

    body: Body
    content_type: str


class Decoded(NamedTuple):
    """What a request asks about, and the form in which it wants the answer.

    Attributes:
        values: as ``examples.Examples`` has them.
        single: answer with one object instead of a list.
        envelope: ``plain``, ``predictions`` (KServe v1), or the Open Inference Protocol's request.
    """

    values: NDArray[Any]
    single: bool
    envelope: Literal["plain", "predictions"] | open_inference.Request = "plain"


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
        prepare: what is done with pictures, see ``images.decode``.
        json_length: the value of ``Inference-Header-Content-Length``, where the request has one.

    Raises:
        problems.Problem: whatever is wrong with the request.
    """
    if len(parts) == 1 and kind_of(parts[0].content_type) != "multipart":
        if json_length is None:
            return _decode(parts[0], signature, prepare)
        return _inference(parts[0].body, json_length, signature, prepare)
    if json_length is not None:
        raise problems.Malformed(
            f"{open_inference.JSON_LENGTH_HEADER} goes with one body and not with multipart/form-data"
        )
    return _parts(map(Part._make, multipart.split(*parts[0])) if len(parts) == 1 else parts, signature, prepare)


def pictures(bodies: Sequence[Body], content_type: str, signature: Signature) -> NDArray[np.uint8] | None:
    """Bodies of one content type, all at once.

    Args:
        bodies: each the only part of its request.
        content_type: of each body.
        signature: the model's contract.

    Returns:
        uint8 ``[N, *shape]``, what ``decode`` has for each; ``None`` unless all are the pixels of one image, or all are
        files that ``images.bare_png`` reads.
    """
    given = signature.input
    if given.kind != "image":
        return None
    height, width = given.shape
    kind = kind_of(content_type)
    if kind == "octets" and {given.example_bytes}.issuperset(map(len, bodies)):
        # Most pixels are told from a file by their first one.
        if not _FILE_STARTS.isdisjoint([body[0] for body in bodies]) and any(map(_is_file, bodies)):
            return None
        return np.frombuffer(bytearray().join(bodies), np.uint8).reshape(-1, height, width)
    if kind == "image":
        found = []
        for body in bodies:
            pixels = images.bare_png(body, (height, width))
            if pixels is None:
                return None
            found.append(pixels)
        return np.stack(found)
    return None


def _parts(parts: Iterable[Part], signature: Signature, prepare: images.Prepare) -> Decoded:
    decoded: list[Decoded] = []
    count = 0
    for part in parts:
        decoded.append(_decode(part, signature, prepare))
        count += len(decoded[-1].values)
        validation.check_count(count)
    if not decoded:
        raise problems.Malformed(f"the request has no content; send {ACCEPTED[signature.input.kind]}")
    if len(decoded) == 1:
        return decoded[0]
    if not all(part.envelope == "plain" for part in decoded):
        raise problems.Unprocessable('{"instances": …} and {"inputs": …} cannot be one part of several')
    return Decoded(np.concatenate([part.values for part in decoded]), False)


def _decode(part: Part, signature: Signature, prepare: images.Prepare) -> Decoded:
    body, content_type = part
    if not body:
        raise problems.Malformed(f"the request has an empty body; send {ACCEPTED[signature.input.kind]}")
    kind = kind_of(content_type)
    if kind == "json":
        return _json(body, signature, prepare)
    if kind in ("multipart", "unknown"):
        raise problems.UnsupportedFormat(f"content type {content_type[:80]!r}; send {ACCEPTED[signature.input.kind]}")
    if kind == "image" or (kind != "npy" and image_headers.sniff(body)):
        return _image(body, signature, prepare)
    if kind == "npy" or body.startswith(npy.MAGIC):
        return _array(npy.read(body), signature)
    return _octets(body, signature) if kind == "octets" else _by_content(body, kind, signature, prepare)


@functools.lru_cache(maxsize=256)
def kind_of(content_type: str) -> Kind:
    """The way to read a body of this content type, which may have parameters."""
    name = content_type.partition(";")[0].strip().lower()
    if name == "application/octet-stream":
        return "octets"
    if name.startswith("image/"):
        return "image"
    if name == "application/json" or name.endswith("+json"):
        return "json"
    if name in (npy.CONTENT_TYPE, "application/npy"):
        return "npy"
    if name == FORM:
        return "form"
    if name.startswith(multipart.CONTENT_TYPE):
        return "multipart"
    if name.startswith("text/"):
        return "text"
    return "unknown" if name else "none"


def _by_content(body: Body, kind: Kind, signature: Signature, prepare: images.Prepare) -> Decoded:
    # Without a copy of what may be large; white space of more than a kilobyte around a text is none that people send.
    head, tail = bytes(body[:1024]).lstrip(), bytes(body[-1024:]).rstrip()
    # A first byte alone would take raw pixels that start with 91 for a list.
    if head.startswith(json_numbers.BYTE_ORDER_MARK) or (head and tail and _JSON_ENDS.get(head[0]) == tail[-1]):
        return _json(body, signature, prepare)
    if head.startswith(_BASE64_STARTS):
        if len(body) > limits.JSON_BYTES:
            raise problems.TooLarge(
                f"{len(body)} bytes of base64; the limit is {limits.JSON_BYTES}, so send the file itself"
            )
        return _base64(body.decode("latin-1"), signature, prepare)
    if kind == "none" and len(body) % signature.input.example_bytes == 0:
        return _octets(body, signature)
    hint = "; curl sends a file unchanged with --data-binary, not with -d" if kind == "form" else ""
    raise problems.UnsupportedFormat(f"the content is none of the formats; send {ACCEPTED[signature.input.kind]}{hint}")


def _array(values: NDArray[Any], signature: Signature) -> Decoded:
    return Decoded(*validation.from_array(values, signature))


def _is_file(body: Body) -> bool:
    return image_headers.sniff(body) is not None or body.startswith(npy.MAGIC)


def _octets(body: Body, signature: Signature) -> Decoded:
    given = signature.input
    datatype = np.dtype("<f4" if given.kind == "vector" else np.uint8)
    count, rest = divmod(len(body), given.example_bytes)
    if rest:
        raise problems.Unprocessable(
            f"{len(body)} bytes are not a multiple of {given.example_bytes}, the bytes of one example "
            f"({'x'.join(map(str, given.shape))} {datatype})"
        )
    validation.check_count(count)
    values = np.frombuffer(body, datatype).reshape(count, *given.shape)
    # Any byte is a pixel.
    return Decoded(values if given.kind == "image" else validation.from_array(values, signature).values, count == 1)


def _image(body: Body, signature: Signature, prepare: images.Prepare) -> Decoded:
    if signature.input.kind != "image":
        raise problems.UnsupportedFormat(f"this model takes no images; send {ACCEPTED['vector']}")
    height, width = signature.input.shape
    return Decoded(images.decode(body, (height, width), prepare)[np.newaxis], True)


def _base64(text: str, signature: Signature, prepare: images.Prepare) -> Decoded:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    body = _from_base64(text)
    if body is None:
        # A form turns + into a space; mail and shells break lines; URLs use - and _, and have no = at the end.
        text = "".join(text.replace(" ", "+").split()).replace("-", "+").replace("_", "/").rstrip("=")
        body = _from_base64(text + "=" * (-len(text) % 4))
    if body is None:
        raise problems.Malformed("a string is not base64")
    return _image(body, signature, prepare)


def _from_base64(text: str) -> bytes | None:
    try:
        body = binascii.a2b_base64(text)
    except ValueError:
        return None
    # a2b_base64 skips what is not base64, so the length tells whether there was any.
    return body if len(body) == len(text) * 3 // 4 - text.count("=", -2) else None


def _inference(body: Body, json_length: int | None, signature: Signature, prepare: images.Prepare) -> Decoded:
    if json_length and json_length > limits.JSON_BYTES:
        raise problems.TooLarge(
            f"{json_length} bytes of JSON in an inference request; the limit is {limits.JSON_BYTES}"
        )
    values, request = open_inference.parse(body, json_length, signature, prepare)
    return Decoded(values, False, request)


def _json(text: Body, signature: Signature, prepare: images.Prepare) -> Decoded:
    if len(text) > limits.JSON_PIECE_BYTES and (decoded := _long_json(text, signature)):
        return decoded
    json_numbers.check_size(text)
    text = text.removeprefix(json_numbers.BYTE_ORDER_MARK)
    # The protocol's own reader parses the text itself; this test keeps most requests from being parsed twice. One byte
    # is looked for many times faster than a word.
    if b'"' in text and b'"inputs"' in text and b'"instances"' not in text and text.lstrip()[:1] == b"{":
        return _inference(text, None, signature, prepare)
    document = json_numbers.load(text)
    may_hold_booleans = b"e" in text and (b"true" in text or b"false" in text)
    reader = _JsonReader(signature, prepare, may_hold_booleans)
    if type(document) is dict:
        if "instances" in document:
            return Decoded(reader.instances(document["instances"]), False, "predictions")
        if "inputs" in document:
            return _inference(text, None, signature, prepare)
    return reader.examples(document)


def _long_json(text: Body, signature: Signature) -> Decoded | None:
    """A long text of nothing but numbers, bare or as ``{"instances": …}``; ``None`` for any other."""
    start = len(json_numbers.BYTE_ORDER_MARK) if text.startswith(json_numbers.BYTE_ORDER_MARK) else 0
    end = len(text)
    instances = _INSTANCES.match(text, start)
    if instances:
        start, end = instances.end(), text.rfind(b"}")
        if end < len(text) - 1024 or text[end + 1 :].strip():
            return None
    most = limits.EXAMPLES * math.prod(signature.input.shape)
    values = json_numbers.from_text(text, start, end, signature.input.kind == "image", most)
    if values is None:
        return None
    found = validation.from_array(values, signature)
    if instances and found.single:
        raise problems.Unprocessable(_WHOLE_INSTANCES)
    return Decoded(*found, "predictions" if instances else "plain")


class _JsonReader(NamedTuple):
    """Turns parsed JSON into examples; what stays the same throughout one document is kept here."""

    signature: Signature
    prepare: images.Prepare
    may_hold_booleans: bool

    def instances(self, found: Any) -> NDArray[Any]:
        """The value of ``instances``: a list, each member one example."""
        if type(found) is not list:
            raise problems.Unprocessable('"instances" must be a list with one member for each example')
        validation.check_count(len(found))
        if all(type(instance) is list for instance in found):
            values = validation.from_array(self._numbers(found), self.signature)
            if values.single:
                raise problems.Unprocessable(_WHOLE_INSTANCES)
            return values.values
        return self._joined(found)

    def examples(self, found: Any) -> Decoded:
        """One example or a list of them: numbers, base64 strings or objects that hold one of these."""
        if type(found) is list:
            if found and type(found[0]) in (str, dict):
                validation.check_count(len(found))
                return Decoded(self._joined(found), False)
            return _array(self._numbers(found), self.signature)
        if type(found) is str:
            return _base64(found, self.signature, self.prepare)
        if type(found) is dict:
            return self.examples(self._unwrapped(found))
        raise problems.Unprocessable(f"JSON {json_numbers.type_name(found)} is no input; send {self._expected()}")

    def _joined(self, found: list[Any]) -> NDArray[Any]:
        read = [self.examples(member) for member in found]
        if not all(one.single for one in read):
            raise problems.Unprocessable("each member of the list must be one example")
        return np.concatenate([one.values for one in read])

    def _unwrapped(self, found: Mapping[str, Any]) -> Any:
        for name in _WRAPPERS:
            if name in found:
                inner = found[name]
                # {"image": {"b64": …}} is as deep as wrapping goes; more would only serve to exhaust the stack.
                if type(inner) is dict:
                    inner = inner.get("b64")
                if type(inner) in (list, str):
                    return inner
                raise problems.Unprocessable(f'"{name}" must hold {self._expected()}')
        raise problems.Unprocessable(
            f'a JSON object needs "instances", "inputs", or one of {", ".join(_WRAPPERS)}; it has '
            f"{', '.join(map(repr, itertools.islice(found, 5)))[:120] or 'nothing'}"
        )

    def _expected(self) -> str:
        shapes = validation.accepted_shapes(self.signature)
        return f"numbers as {shapes}" + (", or base64 images" if self.signature.input.kind == "image" else "")

    def _numbers(self, found: list[Any]) -> NDArray[Any]:
        return json_numbers.from_list(found, self.signature.input.kind == "image", self.may_hold_booleans)
