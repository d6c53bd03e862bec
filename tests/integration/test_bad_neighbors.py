"""One bad request among sixteen concurrent ones, of every kind: fifteen right answers and one problem."""

from __future__ import annotations

import asyncio
import io
import json
import os

import aiohttp
import numpy as np
import pytest
from PIL import Image

from models.datasets import fashion_mnist
from tests.integration.test_predictions import expected
from tests.support import image_files, npy_files

# `make fuzz` sets more.
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "8"))
TOGETHER = 16
OCTETS = "application/octet-stream"
JSON = "application/json"
NPY = "application/x-npy"


def _picture(format_: str) -> bytes:
    return image_files.save(Image.new("RGB", (64, 48), "navy"), format_)


def _tensor(**changes: object) -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784, **changes}
    return json.dumps({"inputs": [tensor]}).encode()


def _list(value: str, count: int = 784) -> bytes:
    return f"[{','.join([value] * count)}]".encode()


_BINARY = json.dumps(
    {"inputs": [{"name": "i", "datatype": "UINT8", "shape": [1, 784], "parameters": {"binary_data_size": 784}}]}
).encode()

# By kind of bad input: body, content type, expected status, and further headers.
BAD: dict[str, tuple[bytes, str, int, dict[str, str]]] = {
    "no body": (b"", OCTETS, 400, {}),
    "part of an image": (bytes(783), OCTETS, 422, {}),
    "too many images": (bytes(784 * 10_001), OCTETS, 413, {}),
    "cut PNG": (_picture("PNG")[:60], "image/png", 400, {}),
    "cut JPEG": (_picture("JPEG")[:200], "image/jpeg", 400, {}),
    "cut GIF": (_picture("GIF")[:40], "image/gif", 400, {}),
    "cut WebP": (_picture("WEBP")[:30], "image/webp", 400, {}),
    "cut AVIF": (_picture("AVIF")[:-20], "image/avif", 400, {}),
    "cut HEIC": (image_files.stored("tiles.heic")[:-20], "image/heic", 400, {}),
    "cut TIFF": (_picture("TIFF")[:60], "image/tiff", 400, {}),
    "AVIF larger than it declares": (image_files.stored("larger_than_declared.avif.gz"), "image/avif", 400, {}),
    "HEIC larger than it declares": (image_files.stored("larger_than_declared.heic.gz"), "image/heic", 413, {}),
    "60 megapixels": (image_files.with_size(_picture("JPEG"), "JPEG", 10_000, 6_000), "image/jpeg", 413, {}),
    "decompression bomb": (image_files.png_declaring(60000, 60000), "image/png", 413, {}),
    "PNG without its pixels": (image_files.png_declaring(100, 100), "image/png", 400, {}),
    "text as a PNG": (b"this is not a picture", "image/png", 415, {}),
    "unknown content type": (b"%PDF-1.7", "application/pdf", 415, {}),
    "cut JSON": (b"[[1, 2", JSON, 400, {}),
    "deep JSON": (b"[" * 5000 + b"]" * 5000, JSON, 400, {}),
    "giant JSON": (_list("1", 1_000_001), JSON, 413, {}),
    "JSON of a wrong shape": (_list("1", 783), JSON, 422, {}),
    "ragged JSON": (b"[[1, 2], [3]]", JSON, 422, {}),
    "JSON out of range": (_list("256"), JSON, 422, {}),
    "JSON with NaN": (_list("NaN"), JSON, 422, {}),
    "JSON with text": (_list('"x"'), JSON, 400, {}),
    "JSON with null": (_list("null"), JSON, 422, {}),
    "instances of a wrong shape": (b'{"instances": [[1, 2, 3]]}', JSON, 422, {}),
    "broken base64": (b'{"instances": [{"b64": "!!!!"}]}', JSON, 400, {}),
    "npy with a broken header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1', ", NPY, 400, {}),
    "pickled npy": (npy_files.save(np.array([{"a": 1}], dtype=object)), NPY, 422, {}),
    "npy of a wrong shape": (npy_files.save(np.zeros((3, 3), np.uint8)), NPY, 422, {}),
    "npy with infinity": (npy_files.save(np.full((28, 28), np.inf, np.float32)), NPY, 422, {}),
    "tensor of a wrong length": (_tensor(data=[0] * 10), JSON, 400, {}),
    "tensor of a negative shape": (_tensor(shape=[1, -28, -28]), JSON, 422, {}),
    "tensor of an overflowing shape": (_tensor(shape=[2**62, 4, 4]), JSON, 400, {}),
    "tensor of an unknown datatype": (_tensor(datatype="FP8"), JSON, 422, {}),
    "two tensors": (json.dumps({"inputs": [{}, {}]}).encode(), JSON, 422, {}),
    "binary tensor cut short": (
        _BINARY + bytes(700),
        OCTETS,
        400,
        {"Inference-Header-Content-Length": str(len(_BINARY))},
    ),
    "header length beyond the body": (_BINARY, OCTETS, 400, {"Inference-Header-Content-Length": "999999"}),
    "top_k of zero": (bytes(784), OCTETS, 422, {"X-Query": "top_k=0"}),
    "top_k of -1": (bytes(784), OCTETS, 422, {"X-Query": "top_k=-1"}),
    "top_k of x": (bytes(784), OCTETS, 422, {"X-Query": "top_k=x"}),
    "no acceptable form of answer": (bytes(784), OCTETS, 406, {"Accept": "text/html"}),
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return fashion_mnist().test_inputs[: TOGETHER * 12].numpy()


@pytest.fixture(scope="module")
def probabilities(images) -> np.ndarray:
    return expected("fashion_mlp", len(images))


@pytest.mark.parametrize("case", BAD)
def test_the_neighbors_of_a_bad_request_get_their_answers(service, images, probabilities, case):
    body, content_type, status, headers = BAD[case]
    url = f"{service.inference}/predictions/fashion_mlp"

    async def good(session: aiohttp.ClientSession, index: int) -> None:
        forms = {"Content-Type": OCTETS, "Accept": OCTETS}
        async with session.post(url, data=images[index].tobytes(), headers=forms) as answer:
            content = await answer.read()
            assert answer.status == 200, content
        assert np.abs(np.frombuffer(content, "<f4") - probabilities[index]).max() < 1e-5

    async def bad(session: aiohttp.ClientSession) -> None:
        sent = io.BytesIO(body) if body else b""
        async with session.post(url, data=sent, headers={"Content-Type": content_type, **headers}) as answer:
            content = await answer.read()
            assert answer.status == status, content
            assert answer.content_type == "application/problem+json"
        problem = json.loads(content)
        assert problem["status"] == status
        assert problem["detail"]

    async def rounds() -> None:
        limit = aiohttp.TCPConnector(limit=TOGETHER)
        async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout(60)) as session:
            for number in range(ROUNDS):
                place = number % TOGETHER
                first = number * TOGETHER % len(images)
                calls = [bad(session) if i == place else good(session, first + i) for i in range(TOGETHER)]
                await asyncio.gather(*calls)

    asyncio.run(rounds())
