"""The data: FashionMNIST from its four IDX files, and two seeded synthetic sets.

FashionMNIST is looked for in ``$FASHION_MNIST_DIR``, in Debian's package ``dataset-fashion-mnist`` and in ``data/``,
and is downloaded there otherwise. Whatever the source, the unpacked contents must have the published SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import requests
import torch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from torch import Tensor

FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# SHA-256 of the unpacked files: the packed ones differ between distributors (gzip headers and levels).
FASHION_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_DIR = Path(__file__).parent.parent / "data" / "fashion-mnist"
# The dataset's own public home, as its README gives it.
DOWNLOAD_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DOWNLOAD_ATTEMPTS = 4
# The largest real file is 47 MB unpacked; anything far beyond is not one of them.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024


class DataError(Exception):
    """Data that is missing, damaged or not what it claims to be; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A whole dataset held as tensors.

    Attributes:
        name: for people and model cards.
        train_inputs: [N, *shape]; uint8 pixels 0-255 or float32 features.
        train_targets: [N] int64 class indices, or [N, labels] float32 of 0 and 1 for independent labels.
        test_inputs: as ``train_inputs``.
        test_targets: as ``train_targets``.
        digests: SHA-256 of each part, by name.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    digests: dict[str, str]


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
    expected = start
    for length in shape[1:]:
        if length == 0:
            raise DataError(f"{source}: the IDX header gives the empty shape {shape}")
    expected += int(np.prod(shape, dtype=object))
    if len(data) != expected:
        difference = len(data) - expected
        what = f"{difference} trailing bytes" if difference > 0 else f"{-difference} bytes missing"
        raise DataError(f"{source}: {what} (header {shape} needs {expected} bytes, the file has {len(data)})")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpack(packed: bytes, source: str) -> bytes:
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


def _verified(path: Path) -> bytes:
    """The unpacked contents of one file (plain or ``.gz``), refused unless its digest is the published one."""
    packed = path.read_bytes()
    data = _unpack(packed, str(path)) if path.suffix == ".gz" else packed
    name = path.name.removesuffix(".gz")
    digest = hashlib.sha256(data).hexdigest()
    if digest != FASHION_FILES[name]:
        raise DataError(
            f"{path}: altered or damaged (SHA-256 of the contents is {digest}, published is {FASHION_FILES[name]}); "
            "replace the file"
        )
    return data


def _find(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    return None


def download(folder: Path, base_url: str = DOWNLOAD_URL) -> None:
    """Fetch the four packed files into ``folder``, each checked before it gets its name.

    Files already there are kept. Each one is tried several times, with growing pauses.

    Raises:
        DataError: the server cannot be reached, or what it sends is not the published file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        for name in FASHION_FILES:
            if _find(folder, name) is None:
                _download_file(f"{base_url}/{name}.gz", folder / f"{name}.gz", progress)


def _download_file(url: str, target: Path, progress: Progress) -> None:
    part = target.with_name(f".{target.name}")
    task = progress.add_task(target.name, total=None)
    failure: Exception | None = None
    for attempt in range(DOWNLOAD_ATTEMPTS):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            progress.reset(task, total=None)
            with requests.get(url, stream=True, timeout=30) as answer:
                answer.raise_for_status()
                length = answer.headers.get("Content-Length")
                progress.update(task, total=int(length) if length else None)
                with part.open("wb") as file:
                    for chunk in answer.iter_content(1 << 16):
                        file.write(chunk)
                        progress.update(task, advance=len(chunk))
            digest = hashlib.sha256(_unpack(part.read_bytes(), url)).hexdigest()
            if digest != FASHION_FILES[target.name.removesuffix(".gz")]:
                raise DataError(f"{url}: the server sent another file (SHA-256 {digest})")
            part.replace(target)
            return
        except (requests.RequestException, OSError, DataError) as error:
            failure = error
        finally:
            part.unlink(missing_ok=True)
    raise DataError(
        f"FashionMNIST could not be downloaded ({failure}). Install Debian's package 'dataset-fashion-mnist', "
        "or put the four files into a folder and set FASHION_MNIST_DIR to it."
    )


def fashion_mnist_dir() -> Path:
    """The folder that holds the four files: the first that has them of the places that the module names.

    Raises:
        DataError: ``$FASHION_MNIST_DIR`` is set but lacks a file, or the download fails.
    """
    chosen = os.environ.get("FASHION_MNIST_DIR")
    if chosen:
        missing = [name for name in FASHION_FILES if _find(Path(chosen), name) is None]
        if missing:
            raise DataError(f"FASHION_MNIST_DIR={chosen} lacks {', '.join(missing)} (plain or with .gz)")
        return Path(chosen)
    for folder in (DEBIAN_DIR, DOWNLOAD_DIR):
        if all(_find(folder, name) for name in FASHION_FILES):
            return folder
    download(DOWNLOAD_DIR)
    return DOWNLOAD_DIR


def fashion_mnist() -> Dataset:
    """FashionMNIST (Xiao, Rasul, Vollgraf 2017): 60,000 and 10,000 grey images, uint8 [N, 28, 28], ten classes.

    Raises:
        DataError: a file is missing, altered, truncated or no IDX file; it is named.
    """
    folder = fashion_mnist_dir()
    parts = {}
    for name in FASHION_FILES:
        path = _find(folder, name)
        if path is None:
            raise DataError(f"{folder}: {name} is missing")
        parts[name] = torch.from_numpy(parse_idx(_verified(path), str(path)).copy())
    return Dataset(
        "FashionMNIST",
        parts["train-images-idx3-ubyte"],
        parts["train-labels-idx1-ubyte"].long(),
        parts["t10k-images-idx3-ubyte"],
        parts["t10k-labels-idx1-ubyte"].long(),
        dict(FASHION_FILES),
    )


def _digests(**parts: Tensor) -> dict[str, str]:
    return {name: hashlib.sha256(part.numpy().tobytes()).hexdigest() for name, part in parts.items()}


def _split(name: str, inputs: Tensor, targets: Tensor, test: int) -> Dataset:
    """Keep the last ``test`` examples for testing."""
    parts = {
        "train_inputs": inputs[:-test],
        "train_targets": targets[:-test],
        "test_inputs": inputs[-test:],
        "test_targets": targets[-test:],
    }
    return Dataset(name, **parts, digests=_digests(**parts))


def blobs() -> Dataset:
    """Three Gaussian blobs of four features (scikit-learn ``make_blobs``, seeded): 4,000 and 1,000 examples."""
    # Its import takes longer than everything else that packing an archive does.
    from sklearn.datasets import make_blobs

    inputs, targets = make_blobs(n_samples=5000, n_features=4, centers=3, cluster_std=1.5, random_state=7)
    return _split(
        "Gaussian blobs", torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets.astype(np.int64)), 1000
    )


def two_labels() -> Dataset:
    """Three uniform features in [-3, 3), the labels ``x0 + x1 > 0`` and ``x1 - x2 > 0``; 8,000 and 2,000 examples."""
    inputs = np.random.default_rng(7).uniform(-3, 3, (10000, 3)).astype(np.float32)
    targets = np.stack([inputs[:, 0] + inputs[:, 1] > 0, inputs[:, 1] - inputs[:, 2] > 0], axis=1)
    return _split("Two linear labels", torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.float32)), 2000)


DATASETS: dict[str, Callable[[], Dataset]] = {
    "fashion_mnist": fashion_mnist,
    "blobs": blobs,
    "two_labels": two_labels,
}
