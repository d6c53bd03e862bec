"""FashionMNIST's files are checked strictly, whatever their source."""

import gzip
import struct

import numpy as np
import pytest

from models import fashion_mnist
from models.errors import DataError
from models.fashion_mnist import parse_idx


def idx(*shape: int, values: bytes | None = None, magic: bytes = b"\x00\x00\x08") -> bytes:
    if values is None:
        values = bytes(int(np.prod(shape)))
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder with the four real files unpacked, named by FASHION_MNIST_DIR."""
    real = fashion_mnist.folder()
    for name in fashion_mnist.FILES:
        source = fashion_mnist.find(real, name)
        assert source
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


def test_a_folder_of_unpacked_files_is_accepted(copied):
    assert fashion_mnist.folder() == copied
    assert fashion_mnist.read(copied)["t10k-images-idx3-ubyte"].shape == (10000, 28, 28)


def test_an_altered_file_is_refused_by_name(copied):
    path = copied / "t10k-labels-idx1-ubyte"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: altered or damaged"):
        fashion_mnist.read(copied)


def test_a_truncated_packed_file_is_refused_by_name(copied):
    path = copied / "t10k-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (copied / "t10k-labels-idx1-ubyte.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: the gzip file is cut off"):
        fashion_mnist.read(copied)


def test_a_file_that_is_not_gzip_is_refused_by_name(copied):
    (copied / "t10k-labels-idx1-ubyte").unlink()
    (copied / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="not a readable gzip file"):
        fashion_mnist.read(copied)


def test_a_decompression_bomb_is_refused():
    with pytest.raises(DataError, match="unpacks to more than"):
        fashion_mnist.unpack(gzip.compress(bytes(fashion_mnist.MAX_UNPACKED_BYTES + 1), 1), "bomb")


def test_a_chosen_folder_without_the_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"FASHION_MNIST_DIR=.* lacks train-images-idx3-ubyte"):
        fashion_mnist.folder()


class Scripted:
    """A source that has some of the files, or fails."""

    def __init__(self, name, files=(), reason=None):
        self.name, self._files, self._reason = name, files, reason
        self.requested = []

    def fetch(self, names, folder, _check, _progress):
        self.requested = list(names)
        for name in self._files:
            (folder / f"{name}.gz").write_bytes(b"")
        if self._reason:
            raise DataError(self._reason)


def test_no_source_is_tried_after_the_first_that_has_the_files(tmp_path):
    first, second, third = Scripted("a", ["t10k-images-idx3-ubyte"], "broke off"), Scripted("b"), Scripted("c")
    fashion_mnist.fetch(tmp_path / "new", [first, second, third])
    assert first.requested == list(fashion_mnist.FILES)
    # The first source's file is kept.
    assert second.requested == [name for name in fashion_mnist.FILES if name != "t10k-images-idx3-ubyte"]
    assert third.requested == []


def test_if_all_sources_fail_the_error_gives_each_reason_and_the_remedy(tmp_path):
    with pytest.raises(DataError) as caught:
        fashion_mnist.fetch(tmp_path, [Scripted("a", reason="no answer"), Scripted("b", reason="no apt-get")])
    lines = str(caught.value).splitlines()
    assert lines[1:3] == ["  a: no answer", "  b: no apt-get"]
    assert "dataset-fashion-mnist" in lines[3]
    assert "FASHION_MNIST_DIR" in lines[3]
