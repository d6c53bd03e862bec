"""The table of versions that ``status`` prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from serving.settings import read as read_settings
from serving.store import index, live
from serving.store.live import Canary, Live
from serving.supervisor.status import version_table
from serving.torchserve.management import Model, Worker
from tests.support import packing


@pytest.fixture
def settings(tmp_path):
    store = tmp_path / "store"
    for version, accuracy in (("1.0", 0.9), ("1.1", 0.91), ("1.2", 0.92), ("0.9", 0.5)):
        packing.pack(store, "tiny", version, accuracy=accuracy)
    live.write(tmp_path, {"tiny": Live("1.1", ("1.0",), Canary("1.2", 12.5))})
    return read_settings({"FASHION_MODEL_STORE": str(store), "FASHION_RUN_DIR": str(tmp_path)})


def _running(version, *ready):
    workers = tuple(Worker(str(number), 1, each, False) for number, each in enumerate(ready))
    return Model("tiny", version, 1, 0, 100, workers)


RUNNING = [_running("1.1", True, True), _running("1.2", True, False), _running("7.0", True)]


def test_each_version_has_its_role_share_workers_and_accuracy(settings):
    columns = version_table(settings, RUNNING).columns
    digests = {entry.version: entry.sha256[:12] for entry in index.read(settings.model_store, None)}
    assert list(zip(*(column.cells for column in columns), strict=True)) == [
        ("tiny", "0.9", "", "-", "-", "0.5000", digests["0.9"]),
        ("tiny", "1.0", "previous", "-", "-", "0.9000", digests["1.0"]),
        ("tiny", "1.1", "live", "87.5 %", "2 of 2", "0.9100", digests["1.1"]),
        ("tiny", "1.2", "canary", "12.5 %", "1 of 2", "0.9200", digests["1.2"]),
        ("tiny", "7.0", "registered", "-", "1 of 1", "-", "not in the index"),
    ]


def _shown(settings):
    output = io.StringIO()
    Console(file=output, width=200).print(version_table(settings, RUNNING))
    return output.getvalue()


def test_changed_archive_is_marked(settings):
    assert "but the archive differs" not in _shown(settings)
    path = settings.model_store / "tiny-1.1.mar"
    path.write_bytes(path.read_bytes()[:-1])
    (line,) = [line for line in _shown(settings).splitlines() if "but the archive differs" in line]
    assert "1.1" in line


def test_missing_index_is_shown(settings):
    (settings.model_store / "index.json").unlink()
    assert "holds no archive" in _shown(settings)
