"""What makes an archive usable, and how an unusable one is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from handlers.signature import FILE_NAME
from serving import archives
from serving.errors import ArchiveError
from tests import packing


def test_archive_says_what_it_holds(tmp_path):
    archive = archives.read(packing.pack(tmp_path, "tiny", "2.1"))
    assert (archive.model, archive.version) == ("tiny", "2.1")
    assert archive.signature == packing.signature("tiny", "2.1")
    assert archive.golden is not None
    assert archive.golden.inputs.shape == (4, packing.FEATURES)
    assert archive.golden.probabilities.shape == (4, len(packing.LABELS))


def test_golden_inputs_are_optional(tmp_path):
    assert archives.read(packing.pack(tmp_path, changes={"golden.npz": None})).golden is None


def _manifest(**model: object) -> bytes:
    manifest = packing.manifest("tiny", "1.0")
    manifest["model"].update(model)
    return json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"MAR-INF/MANIFEST.json": None}, "MAR-INF/MANIFEST.json missing"),
        ({"MAR-INF/MANIFEST.json": b"{"}, "Expecting"),
        ({"MAR-INF/MANIFEST.json": b"{}"}, "model is missing"),
        ({"MAR-INF/MANIFEST.json": b"[]"}, "list"),
        ({"MAR-INF/MANIFEST.json": _manifest(modelName="other")}, "the manifest says other 1.0"),
        ({"MAR-INF/MANIFEST.json": _manifest(modelVersion="3.0")}, "the manifest says tiny 3.0"),
        ({"vector_classifier.py": None}, "vector_classifier.py missing"),
        ({"model.pt": None}, "model.pt missing"),
        ({FILE_NAME: None}, "signature.json missing"),
        ({FILE_NAME: b"{}"}, FILE_NAME),
        ({"golden.npz": b"no arrays"}, "pickle"),
        ({"golden.npz": packing.npz(inputs=np.zeros((1, 3), "float32"))}, "probabilities"),
        (
            {"golden.npz": packing.npz(inputs=np.zeros((2, 3), "f4"), probabilities=np.zeros((1, 2), "f4"))},
            "does not fit",
        ),
        (
            {"golden.npz": packing.npz(inputs=np.zeros((0, 3), "f4"), probabilities=np.zeros((0, 2), "f4"))},
            "does not fit",
        ),
        ({"golden.npz": packing.npz(inputs=np.array([{}]), probabilities=np.zeros((1, 2), "f4"))}, "allow_pickle"),
    ],
)
def test_unusable_archive_is_named_with_the_reason(tmp_path, changes, reason):
    path = packing.pack(tmp_path, changes=changes)
    with pytest.raises(ArchiveError) as raised:
        archives.read(path)
    message = str(raised.value)
    assert str(path) in message
    assert reason in message
    assert "make archive" in message
    assert "\n" not in message


def test_changed_byte_anywhere_is_found(tmp_path):
    path = packing.pack(tmp_path)
    whole = path.read_bytes()
    for place in (30, whole.index(packing.script()), whole.index(packing.CONFIG.encode()) + 3, len(whole) - 30):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(ArchiveError):
            archives.read(path)


def test_missing_archive_is_an_archive_error(tmp_path):
    with pytest.raises(ArchiveError, match=r"gone\.mar"):
        archives.read(tmp_path / "gone.mar")


def test_store_lists_archives_by_file_name(tmp_path):
    for name in ("second", "first"):
        packing.pack(tmp_path, name)
    (tmp_path / "README.md").write_text("not an archive")
    assert [archive.model for archive in archives.read_store(tmp_path)] == ["first", "second"]


def test_empty_or_missing_store_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArchiveError, match="holds no archive; run: make archive"):
            archives.read_store(folder)


def test_same_version_twice_is_told(tmp_path):
    first = packing.pack(tmp_path)
    second = tmp_path / "copy.mar"
    second.write_bytes(first.read_bytes())
    with pytest.raises(ArchiveError, match=r"both hold tiny 1\.0"):
        archives.read_store(tmp_path)
