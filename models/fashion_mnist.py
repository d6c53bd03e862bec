"""FashionMNIST (Xiao, Rasul, Vollgraf 2017): find or fetch its four IDX files, and read them.

``$FASHION_MNIST_DIR``, the folder of Debian's package and ``data/`` are searched in this order. If none has the files,
they are fetched into ``data/`` from the first of ``SOURCES`` whose files have the published SHA-256.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from models.downloads import Mirror, Package, Source, display
from models.errors import DataError

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# Kinds of clothes by their everyday names, and the labels that are right for each; some are right for several kinds.
KINDS = {
    "t-shirt": {"T-shirt/top", "Shirt"},
    "pants": {"Trouser"},
    "longsleeve": {"Pullover", "Shirt"},
    "dress": {"Dress"},
    "outwear": {"Coat", "Pullover"},
    "shoes": {"Sandal", "Sneaker", "Ankle boot"},
    "shirt": {"Shirt", "Pullover"},
}

# SHA-256 of the unpacked files, because the packed ones differ between distributors (gzip headers and levels).
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_DIR = Path(__file__).parent.parent / "data" / "fashion-mnist"
# In the order in which they are tried: the address in the dataset's README, the authors' repository, the copy that
# Keras' fashion_mnist.load_data reads, and the archive of Debian or Ubuntu.
SOURCES: tuple[Source, ...] = (
    Mirror("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
    Mirror("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"),
    Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
    Package("dataset-fashion-mnist", DEBIAN_DIR),
)
# The largest file is 47 MB unpacked; the limit keeps a decompression bomb out of memory.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024


def folder() -> Path:
    """The first folder that has the four files, or ``data/`` after fetching them.

    Raises:
        DataError: ``$FASHION_MNIST_DIR`` is set but lacks a file, or no source has the files.
    """
    if chosen := os.environ.get("FASHION_MNIST_DIR"):
        if missing := _missing(Path(chosen)):
            raise DataError(f"FASHION_MNIST_DIR={chosen} lacks {', '.join(missing)} (plain or with .gz)")
        return Path(chosen)
    for place in (DEBIAN_DIR, DOWNLOAD_DIR):
        if not _missing(place):
            return place
    fetch(DOWNLOAD_DIR)
    return DOWNLOAD_DIR


def fetch(target: Path, sources: Sequence[Source] = SOURCES) -> None:
    """Fetch the files that a folder lacks, from the first source that has the right ones.

    Args:
        target: the folder, created if missing. Files that it has are kept.
        sources: in the order in which they are tried.

    Raises:
        DataError: no source has them; the message gives each source's fault, and the remedy.
    """
    target.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    reasons = []
    for source in sources:
        console.print(f"fetching FashionMNIST from {source.name}", markup=False)
        try:
            with display(disable=not console.is_terminal) as progress:
                source.fetch(_missing(target), target, check, progress)
            return
        except DataError as error:
            reasons.append(f"  {source.name}: {error}")
    failures = "\n".join(reasons)
    raise DataError(
        f"FashionMNIST could not be fetched from any of its sources:\n{failures}\n"
        "Install Debian's package dataset-fashion-mnist, or put the four files, plain or as .gz, into a folder "
        "and set FASHION_MNIST_DIR to it."
    )


def _missing(place: Path) -> list[str]:
    return [name for name in FILES if find(place, name) is None]


def find(place: Path, name: str) -> Path | None:
    """The path of one of the four files in a folder, packed or plain; ``None`` if it is missing."""
    return next((path for path in (place / f"{name}.gz", place / name) if path.is_file()), None)


def read(place: Path) -> dict[str, np.ndarray]:
    """The four files of a folder, by name: uint8 images [N, 28, 28] and labels [N].

    Raises:
        DataError: a file is missing, altered, truncated or not in the IDX format; the message names it.
    """
    arrays = {}
    for name in FILES:
        path = find(place, name)
        if path is None:
            raise DataError(f"{place}: {name} is missing")
        arrays[name] = parse_idx(check(str(path), path.read_bytes()), str(path))
    return arrays


def check(source: str, content: bytes) -> bytes:
    """The unpacked contents of one of the four files.

    Args:
        source: path or URL that ends with the file's name, plus ``.gz`` if the file is packed.
        content: the file's bytes.

    Raises:
        DataError: the file cannot be unpacked, or its digest differs from the published one.
    """
    data = unpack(content, source) if source.endswith(".gz") else content
    published = FILES[source.removesuffix(".gz").split("/")[-1]]
    digest = hashlib.sha256(data).hexdigest()
    if digest != published:
        raise DataError(
            f"{source}: altered or damaged (SHA-256 of the contents is {digest}, published is {published}); "
            "replace the file"
        )
    return data


def unpack(packed: bytes, source: str) -> bytes:
    """Unpack gzip, up to ``MAX_UNPACKED_BYTES``.

    Raises:
        DataError: ``packed`` is not gzip, is cut off, or unpacks to more; the message names ``source``.
    """
    try:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        data = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise DataError(f"{source}: not a readable gzip file ({error})") from error
    if unpacker.unconsumed_tail:
        raise DataError(f"{source}: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not unpacker.eof:
        raise DataError(f"{source}: the gzip file is cut off")
    return data


def parse_idx(data: bytes, source: str) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    The format is described at the end of the MNIST page (LeCun, Cortes, Burges): two zero bytes, a type code (8 is
    unsigned byte), the number of axes, each length as a big-endian 32-bit integer, then the values.

    Returns:
        uint8 array with the shape that the header gives.

    Raises:
        DataError: wrong magic number, or a size that does not match the header (short or trailing bytes).
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] not in (1, 3):
        raise DataError(f"{source}: not an IDX file of unsigned bytes (magic number {data[:4].hex() or 'missing'})")
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise DataError(f"{source}: the IDX header is cut off after {len(data)} bytes")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if 0 in shape[1:]:
        raise DataError(f"{source}: the IDX header gives the empty shape {shape}")
    expected = start + math.prod(shape)
    if len(data) != expected:
        difference = len(data) - expected
        mismatch = f"{difference} trailing bytes" if difference > 0 else f"{-difference} bytes missing"
        raise DataError(f"{source}: {mismatch} (header {shape} needs {expected} bytes, the file has {len(data)})")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
