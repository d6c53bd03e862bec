"""FashionMNIST is read strictly, wherever it comes from."""

import gzip
import http.server
import struct
import threading

import numpy as np
import pytest
import torch
from rich.progress import Progress

from models import datasets
from models.datasets import DataError, parse_idx


def idx(*shape: int, values: bytes | None = None, magic: bytes = b"\x00\x00\x08") -> bytes:
    if values is None:
        values = bytes(int(np.prod(shape)))
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


@pytest.fixture(scope="module")
def real_dir():
    return datasets.fashion_mnist_dir()


@pytest.fixture
def copied(real_dir, tmp_path, monkeypatch):
    """A folder with the four real files unpacked, named by FASHION_MNIST_DIR."""
    for name in datasets.FASHION_FILES:
        source = datasets._find(real_dir, name)
        data = source.read_bytes()
        (tmp_path / name).write_bytes(gzip.decompress(data) if source.suffix == ".gz" else data)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    return tmp_path


def test_idx_images_and_labels():
    images = parse_idx(idx(2, 3, 4, values=bytes(range(24))), "images")
    assert images.shape == (2, 3, 4)
    assert images.dtype == np.uint8
    assert images[1, 2, 3] == 23
    assert parse_idx(idx(3, values=b"\x07\x08\x09"), "labels").tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "magic number missing"),
        (b"\x00\x00", "magic number 0000"),
        (idx(2, 2, 2, magic=b"\x00\x00\x0d"), "magic number 00000d03"),
        (idx(2, 2, 2, magic=b"\x01\x00\x08"), "magic number 01000803"),
        (idx(2, 2), "magic number 00000802"),
        (idx(2, 3, 4)[:10], "header is cut off after 10 bytes"),
        (idx(2, 3, 4)[:-1], "1 bytes missing"),
        (idx(2, 3, 4) + b"\x00\x00", "2 trailing bytes"),
        (idx(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, values=b""), "bytes missing"),
        (idx(5, 0, 4, values=b""), "empty shape"),
    ],
    ids=["empty", "short", "float-type", "bad-first-byte", "two-axes", "cut-header", "cut", "trailing", "huge", "zero"],
)
def test_a_damaged_idx_file_is_refused_by_name(data, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_idx(data, "some-file")
    assert "some-file" in str(caught.value)


def test_fashion_mnist_is_whole():
    data = datasets.fashion_mnist()
    assert data.train_inputs.shape == (60000, 28, 28)
    assert data.test_inputs.shape == (10000, 28, 28)
    assert data.train_inputs.dtype == torch.uint8
    assert torch.bincount(data.train_targets).tolist() == [6000] * 10
    assert torch.bincount(data.test_targets).tolist() == [1000] * 10


def test_a_folder_of_unpacked_files_serves(copied):
    assert datasets.fashion_mnist_dir() == copied
    assert datasets.fashion_mnist().test_inputs.shape == (10000, 28, 28)


def test_an_altered_file_is_refused_by_name(copied):
    path = copied / "t10k-labels-idx1-ubyte"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: altered or damaged"):
        datasets.fashion_mnist()


def test_a_truncated_packed_file_is_refused_by_name(copied):
    path = copied / "t10k-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (copied / "t10k-labels-idx1-ubyte.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: the gzip file is cut off"):
        datasets.fashion_mnist()


def test_a_file_that_is_not_gzip_is_refused_by_name(copied):
    (copied / "t10k-labels-idx1-ubyte").unlink()
    (copied / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="not a readable gzip file"):
        datasets.fashion_mnist()


def test_a_bomb_is_refused():
    with pytest.raises(DataError, match="unpacks to more than"):
        datasets._unpack(gzip.compress(bytes(datasets.MAX_UNPACKED_BYTES + 1), 1), "bomb")


def test_a_chosen_folder_without_the_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"FASHION_MNIST_DIR=.* lacks train-images-idx3-ubyte"):
        datasets.fashion_mnist_dir()


class _Mirror:
    """A real HTTP server for the four files; each path first gives the answers of ``script``, then the file."""

    def __init__(self, source, script):
        self.requests: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.requests.append(self.path)
                name = self.path.removeprefix("/")
                body = datasets._find(source, name.removesuffix(".gz")).read_bytes()
                fault = script.get(name, []).pop(0) if script.get(name) else None
                self.send_response(503 if fault == "busy" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault == "altered":
                    body = gzip.compress(b"x" * 10).ljust(len(body), b"\x00")
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror(real_dir, monkeypatch):
    monkeypatch.setattr(datasets.time, "sleep", lambda _: None)
    started = []

    def start(**script):
        started.append(_Mirror(real_dir, {name.replace("__", "-") + ".gz": faults for name, faults in script.items()}))
        return started[-1]

    yield start
    for server in started:
        server.close()


def test_download_fetches_and_keeps_the_files(mirror, tmp_path, monkeypatch):
    server = mirror()
    datasets.download(tmp_path, server.url)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.gz" for name in datasets.FASHION_FILES)
    datasets.download(tmp_path, server.url)
    assert len(server.requests) == 4
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    assert datasets.fashion_mnist().test_targets.shape == (10000,)


@pytest.mark.parametrize("fault", ["busy", "cut", "altered"])
def test_download_tries_again(mirror, tmp_path, fault):
    server = mirror(**{"t10k__labels__idx1__ubyte": [fault, fault]})
    with Progress(disable=True) as progress:
        name = "t10k-labels-idx1-ubyte.gz"
        datasets._download_file(f"{server.url}/{name}", tmp_path / name, progress)
    assert server.requests.count("/t10k-labels-idx1-ubyte.gz") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t10k-labels-idx1-ubyte.gz"]


def test_a_download_that_stays_wrong_leaves_nothing(mirror, tmp_path):
    server = mirror(**{"t10k__labels__idx1__ubyte": ["altered"] * 9})
    name = "t10k-labels-idx1-ubyte.gz"
    with Progress(disable=True) as progress, pytest.raises(DataError, match="dataset-fashion-mnist"):
        datasets._download_file(f"{server.url}/{name}", tmp_path / name, progress)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["blobs", "two_labels"])
def test_synthetic_data_is_the_same_each_time(name):
    first, second = datasets.DATASETS[name](), datasets.DATASETS[name]()
    assert first.digests == second.digests
    assert torch.equal(first.train_inputs, second.train_inputs)
