"""Valid requests of every format, and seeded mutations that break them."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from handlers.signature import Input, Output, Signature
from tests.support import image_files, npy_files

IMAGE = Signature("image", "1.0", "", Input("image", "image", (28, 28), (784,)), Output("softmax", ("a", "b")))
VECTOR = Signature("vector", "1.0", "", Input("vector", "features", (4,), (4,)), Output("sigmoid", ("a", "b")))

OCTETS, JSON = "application/octet-stream", "application/json"
# Replacements for a number: bounds of integer types, and huge sizes.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKENS = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"256",
        b"0.5",
        b"1e400",
        b"-0",
        b"9" * 40,
        b"1.7976931348623157e308",
    ),
    *(b"null", b"true", b"false", b'""', b'"x"', b"[]", b"{}", b"[[]]", b'{"b64":"x"}', b"[" * 40, b"]" * 40, b"{" * 3),
    *(b",", b":", b'"', b"\\u0000", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"\0"),
    *(b'"inputs"', b'"instances"', b'"b64"', b'"image"', b'"data"', b'"shape"', b'"datatype"', b'"parameters"'),
    *(b'"binary_data_size"', b'"BYTES"', b'"FP16"', b'"UINT8"', b'"INT64"', b'"name"', b'"outputs"', b'"id"'),
    *(b"'descr'", b"'shape'", b"'fortran_order'", b"True", b"(", b")", b"|O", b">f8", b"<u8", b"|b1", b"28", b"784"),
)
CONTENT_TYPES = (
    *(OCTETS, JSON, "application/x-npy", "image/png", "image/jpeg", "image/webp", "text/plain", ""),
    *("application/x-www-form-urlencoded", "application/xml", "APPLICATION/JSON; charset=utf-16"),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """A body, its content type and JSON length, and the number of examples that it held before any mutation."""

    name: str
    body: bytes
    content_type: str
    signature: Signature = IMAGE
    json_length: int | None = None
    examples: int = 1


def _tensor(datatype: str, shape: list[int], **more: object) -> dict[str, object]:
    return {"name": "image", "shape": shape, "datatype": datatype, **more}


def _binary(name: str, raw: bytes, datatype: str, shape: list[int], signature: Signature = IMAGE) -> Request:
    header = json.dumps({"inputs": [_tensor(datatype, shape, parameters={"binary_data_size": len(raw)})]}).encode()
    return Request(name, header + raw, OCTETS, signature, len(header))


def small() -> list[Request]:
    """Small valid requests of every format and mode."""
    pixels = np.stack([image_files.texture(seed=seed) for seed in range(2)])
    gray = Image.fromarray(pixels[0])
    colors = Image.fromarray(np.stack([image_files.texture(40, 33, seed) for seed in range(3)], -1))
    alpha = colors.convert("RGBA")
    alpha.putalpha(Image.fromarray(image_files.texture(40, 33, 7)))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "PNG gray": image_files.save(gray),
        "PNG 1 bit": image_files.save(gray.convert("1")),
        "PNG palette": image_files.save(colors.convert("P"), transparency=3),
        "PNG 16 bits": image_files.save(Image.fromarray(pixels[0].astype(np.uint16) * 257)),
        "PNG colors": image_files.save(colors, exif=exif),
        "PNG alpha": image_files.save(alpha),
        "PNG animation": image_files.save(gray, save_all=True, append_images=[gray.rotate(90)]),
        "JPEG gray": image_files.save(gray, "JPEG"),
        "JPEG colors": image_files.save(colors, "JPEG", exif=exif),
        "JPEG progressive": image_files.save(colors, "JPEG", progressive=True),
        "JPEG CMYK": image_files.save(colors.convert("CMYK"), "JPEG"),
        "WebP": image_files.save(colors, "WEBP", exif=exif),
        "WebP lossless": image_files.save(alpha, "WEBP", lossless=True),
        "WebP animation": image_files.save(colors, "WEBP", save_all=True, append_images=[colors.rotate(90)]),
        "GIF": image_files.save(gray, "GIF", comment=b"made by hand"),
        "GIF animation": image_files.save(
            colors, "GIF", save_all=True, append_images=[colors.rotate(90)], transparency=0
        ),
        "TIFF": image_files.save(gray, "TIFF"),
        "TIFF colors": image_files.save(colors, "TIFF", exif=exif),
        "TIFF alpha": image_files.save(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF 16 bits": image_files.save(Image.fromarray(pixels[0].astype(np.uint16) * 257), "TIFF"),
        "TIFF fax": image_files.save(gray.convert("1"), "TIFF", compression="group4"),
        "TIFF JPEG": image_files.save(colors, "TIFF", compression="jpeg"),
        "TIFF LZW": image_files.save(colors.convert("P"), "TIFF", compression="tiff_lzw"),
        "AVIF": image_files.save(colors, "AVIF", exif=exif),
        "AVIF alpha": image_files.save(alpha, "AVIF", quality=90),
        "AVIF gray": image_files.save(gray, "AVIF"),
        "AVIF animation": image_files.save(colors, "AVIF", save_all=True, append_images=[colors.rotate(90)]),
        **{f"HEIC {name}": image_files.stored(f"{name}.heic") for name in ("turned", "tiles", "transparent")},
        "HEIC large content": image_files.stored("larger_than_declared.heic.gz"),
        "AVIF large content": image_files.stored("larger_than_declared.avif.gz"),
        "BMP": image_files.save(gray, "BMP"),
        "BMP colors": image_files.save(colors, "BMP"),
        "BMP alpha": image_files.save(alpha, "BMP"),
        "BMP 1 bit": image_files.save(gray.convert("1"), "BMP"),
    }
    encoded = base64.b64encode(pictures["PNG gray"]).decode()
    rows, fractions = pixels.tolist(), (pixels[0] / 255).round(3).tolist()
    documents = {
        "JSON image": rows[0],
        "JSON images": rows,
        "JSON fractions": fractions,
        "JSON base64": {"image": {"b64": encoded}},
        "JSON base64 list": [encoded, encoded],
        "JSON instances": {"instances": [{"b64": encoded}, rows[0]]},
        "OIP JSON": {"id": "1", "inputs": [_tensor("UINT8", [2, 784], data=pixels.ravel().tolist())]},
        "OIP nested": {
            "inputs": [_tensor("INT32", [1, 28, 28], data=rows[:1])],
            "outputs": [{"name": "probabilities"}],
        },
        "OIP strings": {"inputs": [_tensor("BYTES", [1], data=[encoded])], "parameters": {"binary_data_output": True}},
    }
    return [
        *(Request(name, body, "image/" + name.split()[0].lower()) for name, body in pictures.items()),
        *(Request(name, json.dumps(document).encode(), JSON) for name, document in documents.items()),
        Request("raw", pixels.tobytes(), OCTETS),
        Request("npy", npy_files.save(pixels), "application/x-npy"),
        Request("npy Fortran", npy_files.save(np.asfortranarray(pixels.astype(">i2"))), "application/x-npy"),
        Request("npy fractions", npy_files.save(pixels[0] / 255), "application/x-npy"),
        Request("npy objects", npy_files.save(np.array([[{}]], dtype=object)), "application/x-npy"),
        Request("base64", encoded.encode(), "text/plain"),
        Request("data URL", f"data:image/png;base64,{encoded}".encode(), ""),
        _binary("OIP binary", pixels.tobytes(), "UINT8", [2, 28, 28]),
        _binary("OIP binary FP16", (pixels / 255).astype("<f2").tobytes(), "FP16", [2, 784]),
        _binary(
            "OIP binary strings", struct.pack("<I", len(pictures["PNG gray"])) + pictures["PNG gray"], "BYTES", [1]
        ),
        Request("vector raw", np.arange(8, dtype="<f4").tobytes(), OCTETS, VECTOR),
        Request("vector JSON", b"[[1, 2.5, -3, 4e5], [0, 0, 0, 0]]", JSON, VECTOR),
        Request("vector instances", b'{"instances": [{"features": [1, 2, 3, 4]}]}', JSON, VECTOR),
        Request("vector npy", npy_files.save(np.ones((2, 4))), "application/x-npy", VECTOR),
        _binary("vector OIP", np.arange(8, dtype="<f8").tobytes(), "FP64", [2, 4], VECTOR),
    ]


def large() -> list[Request]:
    """Valid requests near the limits of ``handlers.limits``, and large images."""
    rows, columns = np.mgrid[0:2000, 0:2000]
    plane = ((rows // 7 + columns // 3) % 256).astype(np.uint8)
    colors = Image.fromarray(np.stack([plane, plane.T, plane[::-1]], -1))
    alpha = colors.convert("RGBA")
    alpha.putalpha(Image.fromarray(plane))
    camera = colors.resize((6000, 4000))
    twelve = colors.resize((4032, 3024))
    web = colors.crop((0, 0, 1920, 1080))
    pictures = {
        "PNG large": image_files.save(colors, compress_level=1),
        "PNG large alpha": image_files.save(alpha, compress_level=1),
        "JPEG large": image_files.save(camera, "JPEG"),
        "JPEG large progressive": image_files.save(colors, "JPEG", progressive=True, subsampling=0),
        "WebP large": image_files.save(web, "WEBP"),
        "AVIF large": image_files.save(web, "AVIF", speed=10),
        "TIFF large": image_files.save(colors, "TIFF", compression="tiff_lzw"),
        "GIF large": image_files.save(colors, "GIF"),
        "BMP large": image_files.save(Image.fromarray(plane), "BMP"),
        "PNG 12 megapixels": image_files.save(twelve, compress_level=1),
        "WebP 12 megapixels": image_files.save(twelve, "WEBP", method=0),
        "AVIF 12 megapixels": image_files.save(twelve, "AVIF", speed=10),
        "TIFF 12 megapixels": image_files.save(twelve, "TIFF", compression="tiff_lzw"),
        "JPEG 12 megapixels progressive": image_files.save(twelve, "JPEG", progressive=True, subsampling=0),
        "JPEG 50 megapixels": image_files.save(twelve.resize((8192, 6144)), "JPEG"),
    }
    numbers = "[" + ",".join(["[" + ",".join(["17"] * 784) + "]"] * 1200) + "]"
    fractions = numbers.replace("17", "0.125")
    one = base64.b64encode(image_files.save(image_files.texture())).decode()
    tensor = _tensor("FP32", [820, 784], data=[0.0625] * 784 * 820)
    return [
        *(Request(name, body, "image/" + name.split()[0].lower()) for name, body in pictures.items()),
        Request("JSON large", numbers.encode(), JSON),
        Request("JSON large fractions", fractions.encode(), JSON),
        Request("JSON base64 large", json.dumps({"instances": [{"b64": one}] * 8000}).encode(), JSON),
        Request("OIP JSON large", json.dumps({"inputs": [tensor]}).encode(), JSON),
        _binary("OIP binary large", bytes(10_000 * 784 * 8), "FP64", [10_000, 28, 28]),
        Request("npy large", npy_files.save(np.zeros((8000, 784), np.float64)), "application/x-npy"),
        Request("raw large", bytes(784 * 10_000), OCTETS),
    ]


def mutated(seed: int, count: int, corpus: list[Request]) -> Iterator[Request]:
    """Yield ``count`` requests: members of the corpus, broken in one to six places. Equal seeds give equal requests."""
    chance = random.Random(seed)
    for _ in range(count):
        request = chance.choice(corpus)
        body = bytearray(request.body)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            chance.choice(MUTATIONS)(chance, body, corpus)
        if body[:4] == b"\x89PNG" and chance.random() < 0.5:
            _repair_png(body)
        yield dataclasses.replace(
            request,
            body=bytes(body),
            content_type=chance.choice(CONTENT_TYPES) if chance.random() < 0.1 else request.content_type,
            json_length=_other_length(chance, request.json_length, len(body)),
        )


def _other_length(chance: random.Random, length: int | None, size: int) -> int | None:
    if chance.random() > (0.2 if length is not None else 0.02):
        return length
    return chance.choice((0, 1, size, size + 1, max((length or 0) - 1, 0), (length or 0) + 1, 10**9))


def _place(chance: random.Random, body: bytearray) -> int:
    # Half of the mutations hit the headers, because they declare sizes and types.
    limit = min(len(body), 200) if chance.random() < 0.5 else len(body)
    return chance.randrange(limit + 1)


def _flip(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def _number(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    place, length = _place(chance, body), chance.choice((1, 2, 4))
    value = chance.choice(NUMBERS) & (1 << 8 * length) - 1
    body[place : place + length] = value.to_bytes(length, chance.choice(("big", "little")))


def _token(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    place = _place(chance, body)
    body[place : place + chance.choice((0, 0, 1, 2, 8))] = chance.choice(TOKENS)


def _cut(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    del body[_place(chance, body) :]


def _remove(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    place = _place(chance, body)
    del body[place : place + chance.choice((1, 2, 4, 16, 100))]


def _repeat(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    place = _place(chance, body)
    body[place:place] = body[place : place + chance.choice((1, 4, 30, 400))] * chance.choice((1, 2, 20))


def _noise(chance: random.Random, body: bytearray, _: list[Request]) -> None:
    place, length = _place(chance, body), chance.choice((1, 3, 17, 200))
    body[place : place + length] = chance.randbytes(length)


def _splice(chance: random.Random, body: bytearray, corpus: list[Request]) -> None:
    other = chance.choice(corpus).body
    start = chance.randrange(len(other) + 1)
    body[_place(chance, body) :] = other[start : start + 100_000]


MUTATIONS = (_flip, _flip, _number, _number, _token, _cut, _remove, _repeat, _noise, _splice)


def _repair_png(body: bytearray) -> None:
    """Correct the checksums, so that decoding goes past them to the broken data."""
    place = 8
    while place + 12 <= len(body):
        end = place + 8 + int.from_bytes(body[place : place + 4], "big")
        if end + 4 > len(body):
            break
        body[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(body[place + 4 : end])))
        place = end + 4
