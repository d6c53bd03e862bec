"""Archives are read and verified; an unusable one is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest

from handlers.signature import FILE_NAME
from models.index_writer import record
from serving.errors import ArchiveError
from serving.store import archives, index
from tests.support import packing


def _read_store(folder):
    return [archives.read_listed(entry) for entry in index.read(folder, None)]


def test_archive_is_read(tmp_path):
    archive = archives.read(packing.pack(tmp_path, "tiny", "2.1"))
    assert (archive.model, archive.version) == ("tiny", "2.1")
    assert archive.signature == packing.signature("tiny", "2.1")
    assert archive.golden is not None
    assert archive.golden.inputs.shape == (4, packing.FEATURES)
    assert archive.golden.probabilities.shape == (4, len(packing.LABELS))


def test_golden_inputs_are_optional(tmp_path):
    assert archives.read(packing.pack(tmp_path, changes={"golden.npz": None})).golden is None


@pytest.mark.parametrize(
    ("config", "unbatched"),
    [(b"unbatchedWorker: true\n", True), (b"minWorkers: 1\n", False), (b"", False), (None, False)],
)
def test_an_archive_may_ask_for_a_worker_without_batches(tmp_path, config, unbatched):
    assert archives.read(packing.pack(tmp_path, changes={"model-config.yaml": config})).unbatched == unbatched


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
        ({"MAR-INF/MANIFEST.json": _manifest(modelName="other")}, "the manifest names other 1.0"),
        ({"MAR-INF/MANIFEST.json": _manifest(modelVersion="3.0")}, "the manifest names tiny 3.0"),
        ({"vector_classifier.py": None}, "vector_classifier.py missing"),
        ({"model.pt": None}, "model.pt missing"),
        ({FILE_NAME: None}, "signature.json missing"),
        ({FILE_NAME: b"{}"}, FILE_NAME),
        ({"model-config.yaml": b"batchSize: [\n"}, "while parsing"),
        ({"model-config.yaml": b"unbatchedWorker: 1\n"}, "must be true or false, got 1"),
        ({"model-config.yaml": b"- 1\n"}, "list"),
        ({"golden.npz": b"no arrays"}, "pickle"),
        ({"golden.npz": packing.npz(inputs=np.zeros((1, 3), "float32"))}, "probabilities"),
        (
            {"golden.npz": packing.npz(inputs=np.zeros((2, 3), "f4"), probabilities=np.zeros((1, 2), "f4"))},
            "do not match",
        ),
        (
            {"golden.npz": packing.npz(inputs=np.zeros((0, 3), "f4"), probabilities=np.zeros((0, 2), "f4"))},
            "do not match",
        ),
        ({"golden.npz": packing.npz(inputs=np.array([{}]), probabilities=np.zeros((1, 2), "f4"))}, "allow_pickle"),
    ],
)
def test_error_names_the_unusable_archive_and_the_reason(tmp_path, changes, reason):
    path = packing.pack(tmp_path, changes=changes)
    with pytest.raises(ArchiveError) as raised:
        archives.read(path)
    message = str(raised.value)
    assert str(path) in message
    assert reason in message
    assert "make archive" in message
    assert "\n" not in message


def test_changed_byte_anywhere_is_detected(tmp_path):
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


def test_store_is_what_its_index_lists(tmp_path):
    for name, version in (("second", "1.0"), ("first", "1.10"), ("first", "1.9")):
        packing.pack(tmp_path, name, version)
    (tmp_path / "unlisted.mar").write_bytes((tmp_path / "second.mar").read_bytes())
    versions = [(archive.model, archive.version) for archive in _read_store(tmp_path)]
    assert versions == [("first", "1.9"), ("first", "1.10"), ("second", "1.0")]
    assert index.unlisted(tmp_path, index.read(tmp_path, None)) == [tmp_path / "unlisted.mar"]


def test_empty_or_missing_store_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArchiveError, match=r"holds no archive.*run: make archive"):
            _read_store(folder)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _exchange(path):
    # A usable archive, but not the one that was packed under this name.
    path.write_bytes(packing.pack(path.parent / "elsewhere", changes={"golden.npz": None}).read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "is not what was packed"),
        (_exchange, "is not what was packed"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
    ids=["truncated", "another", "missing", "folder"],
)
def test_archive_with_another_digest_is_refused(tmp_path, damage, reason):
    path = packing.pack(tmp_path)
    damage(path)
    with pytest.raises(ArchiveError, match=reason) as raised:
        _read_store(tmp_path)
    assert str(path) in str(raised.value)


def test_archive_of_another_version_than_the_index_lists_is_refused(tmp_path):
    path = packing.pack(tmp_path)
    record(tmp_path, path, "tiny", "2.0", 0.5)
    with pytest.raises(ArchiveError, match=r"holds tiny 1\.0, but index.json lists tiny 2\.0"):
        _read_store(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a.mar": {}}', '{"../a.mar": {"model": "a"}}', "{"], ids=str)
def test_invalid_index_is_an_error(tmp_path, text):
    packing.pack(tmp_path)
    (tmp_path / index.NAME).write_text(text)
    with pytest.raises(ArchiveError, match="make archive"):
        _read_store(tmp_path)


def test_same_version_twice_is_an_error(tmp_path):
    first = packing.pack(tmp_path)
    second = tmp_path / "copy.mar"
    second.write_bytes(first.read_bytes())
    record(tmp_path, second, "tiny", "1.0", 0.5)
    with pytest.raises(ArchiveError, match=r"both hold tiny 1\.0"):
        _read_store(tmp_path)
