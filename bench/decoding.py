"""Cost of decoding: microseconds per image for each format, compared with the format's own library.

    python -m bench.decoding       part of make bench; about ten seconds

Each figure is the fastest of several rounds after a burn-in, because on a shared machine the fastest round was
disturbed least. ``floor`` is the cost of the same bytes without this project: a copy of the values for raw bytes,
``.npy`` and binary tensors, Pillow's ``open`` and ``load`` for images, ``orjson.loads`` for JSON.
"""

from __future__ import annotations

import base64
import functools
import io
import timeit
from collections.abc import Callable

import numpy as np
import orjson
import PIL
from numpy.typing import NDArray
from PIL import Image

from bench import reporting
from handlers.inputs import decoding, npy
from handlers.inputs.multipart import Part
from handlers.signature import Input, Output, Signature

SIGNATURE = Signature(
    model="fashion_mlp",
    version="1.0",
    description="The input of the FashionMNIST models.",
    input=Input("image", "image", (28, 28), (784,), gain=1 / 255),
    output=Output("softmax", tuple("0123456789")),
)
COUNTS = (1, 64)
ROUNDS = 20
SECONDS_PER_ROUND = 0.02


def pictures(count: int) -> NDArray[np.uint8]:
    """Pictures that compress like clothing: a soft shape with some texture, uint8 [count, 28, 28]."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
    shape = np.exp(-4 * (rows**2 + 2 * columns**2))
    values = 220 * shape + random.normal(0, 12, (count, 28, 28)) * (shape > 0.1)
    clipped: NDArray[np.uint8] = values.clip(0, 255).astype(np.uint8)
    return clipped


def image_file(picture: NDArray[np.uint8], format_: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format_)
    return stream.getvalue()


def load_images(bodies: list[bytes]) -> None:
    """Decode image files with Pillow alone."""
    for body in bodies:
        Image.open(io.BytesIO(body)).load()


def tensor(count: int, **more: object) -> dict[str, object]:
    return {"inputs": [{"name": "image", "shape": [count, 28, 28], "datatype": "UINT8", **more}]}


def cases(values: NDArray[np.uint8]) -> dict[str, tuple[list[Part], int | None, Callable[[], object]]]:
    """For each format: the request's parts, the length of its JSON header, and the floor."""
    count, raw = len(values), bytearray(values.tobytes())
    files = {format_: [image_file(value, format_) for value in values] for format_ in ("PNG", "JPEG")}
    text = orjson.dumps(values[0].tolist() if count == 1 else values.tolist())
    fractions = orjson.dumps((values / 255).round(4).tolist())
    encoded = orjson.dumps([base64.b64encode(file).decode() for file in files["PNG"]])
    tensor_text = orjson.dumps(tensor(count, data=values.ravel().tolist()))
    header = orjson.dumps(tensor(count, parameters={"binary_data_size": len(raw)}))

    def copy() -> object:
        return np.frombuffer(raw, np.uint8).copy()

    def one(body: bytes | bytearray, content_type: str) -> list[Part]:
        return [Part(bytearray(body), content_type)]

    return {
        "raw": (one(raw, "application/octet-stream"), None, copy),
        "npy": (one(npy.write(values), npy.CONTENT_TYPE), None, copy),
        "OIP binary": (one(header + raw, "application/octet-stream"), len(header), copy),
        "OIP JSON": (one(tensor_text, "application/json"), None, lambda: orjson.loads(tensor_text)),
        "JSON integers": (one(text, "application/json"), None, lambda: orjson.loads(text)),
        "JSON fractions": (one(fractions, "application/json"), None, lambda: orjson.loads(fractions)),
        "base64 PNG in JSON": (one(encoded, "application/json"), None, functools.partial(load_images, files["PNG"])),
        **{
            format_: (
                [Part(bytearray(file), f"image/{format_.lower()}") for file in bodies],
                None,
                functools.partial(load_images, bodies),
            )
            for format_, bodies in files.items()
        },
    }


def fastest_rounds(calls: list[Callable[[], object]]) -> list[float]:
    """Microseconds of each call's fastest round. Rounds alternate, so that all calls get the same conditions."""
    fastest = [float("inf")] * len(calls)
    numbers = []
    for call in calls:
        number, seconds = timeit.Timer(call).autorange()
        numbers.append(max(1, round(number * SECONDS_PER_ROUND / seconds)))
    for _ in range(ROUNDS):
        for index, (call, number) in enumerate(zip(calls, numbers, strict=True)):
            fastest[index] = min(fastest[index], timeit.timeit(call, number=number) / number * 1e6)
    return fastest


def measure() -> list[dict[str, float | str | int]]:
    """One row for each format and number of images."""
    results: list[dict[str, float | str | int]] = []
    for count in COUNTS:
        for name, (parts, json_length, floor) in cases(pictures(count)).items():
            decode = functools.partial(decoding.decode, parts, SIGNATURE, json_length=json_length)
            decode_us, floor_us = fastest_rounds([decode, floor])
            results.append(
                {
                    "format": name,
                    "images": count,
                    "bytes": sum(len(part.body) for part in parts),
                    "microseconds_per_image": round(decode_us / count, 3),
                    "floor_per_image": round(floor_us / count, 3),
                }
            )
    return results


def main() -> None:
    """Write ``bench/results/decoding.json``."""
    results = measure()
    rows = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in results]
    print(reporting.table(["form", "images", "bytes", "µs per image", "floor, µs"], rows))
    versions = {"numpy": np.__version__, "pillow": PIL.__version__, "orjson": orjson.__version__}
    print(f"→ {reporting.write('decoding', {'versions': versions, 'rows': results})}")


if __name__ == "__main__":
    main()
