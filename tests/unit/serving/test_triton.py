"""Triton's extensions, where the answers of the front door and of the bridge do not show them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np

from handlers.metrics.recorder import Batch, Recorder
from serving.sidecars import triton
from serving.sidecars.triton import Extensions
from serving.torchserve.management import Model, Worker
from tests.support.signatures import FASHION


class Registered:
    """TorchServe with these versions of one model, each with a worker on a GPU.

    Attributes:
        calls: the names of the called methods.
    """

    def __init__(self, *versions: str) -> None:
        self.calls: list[str] = []
        self._models = [Model("fashion", version, 1, 0, 100, (Worker("1", 1, True, True),)) for version in versions]

    async def versions(self, *_: str) -> list[Model]:
        self.calls.append("versions")
        await asyncio.sleep(0)
        return self._models

    async def describe(self, *_: str) -> tuple[Model, dict[str, Any]]:
        self.calls.append("describe")
        return self._models[0], {"platform": "pytorch_torchscript", "inputs": [], "outputs": []}


def test_statistics_have_an_entry_for_each_integer_that_is_not_a_version(tmp_path):
    versions = ("1.9", "1.10", "2", "2.1")
    for examples, version in enumerate(versions, 1):
        recorder = Recorder(tmp_path, dataclasses.replace(FASHION, version=version))
        recorder.add(Batch(["image/png"], [], (0.001, 0.002, 0.003), np.full((examples, 10), 0.1, np.float32)))
        recorder.flush()
    extensions = Extensions(Registered(*versions), tmp_path)  # type: ignore[arg-type]
    stats = asyncio.run(extensions.statistics("fashion"))["model_stats"]
    assert [(each["version"], each["inference_count"]) for each in stats] == [
        *(("1.9", 1), ("1.10", 2), ("2", 3), ("2.1", 4), ("1", 3))
    ]


def test_the_configuration_names_the_device(tmp_path):
    registered = Registered("1.0")
    extensions = Extensions(registered, tmp_path)  # type: ignore[arg-type]
    config = asyncio.run(extensions.config("fashion", ""))
    assert config["instance_group"] == [{"name": "fashion", "count": 1, "kind": "KIND_GPU"}]
    assert registered.calls == ["describe"]


def test_lists_of_all_versions_share_one_listing_until_it_is_old(tmp_path, monkeypatch):
    registered = Registered("1.0")
    extensions = Extensions(registered, tmp_path)  # type: ignore[arg-type]

    async def ask() -> None:
        await asyncio.gather(extensions.index(False), extensions.index(True), extensions.statistics())
        await extensions.statistics()
        assert registered.calls == ["versions"]
        # The statistics of one model are two calls at most, so they are not worth a cache.
        await extensions.statistics("fashion")
        assert len(registered.calls) == 2
        monkeypatch.setattr(triton, "MAX_AGE_S", 0.0)
        await extensions.index(False)
        assert len(registered.calls) == 3

    asyncio.run(ask())


def test_a_caller_that_disconnects_does_not_cancel_the_listing_of_others(tmp_path):
    extensions = Extensions(Registered("1.0"), tmp_path)  # type: ignore[arg-type]

    async def ask() -> list[dict[str, str]]:
        first, second = (asyncio.create_task(extensions.index(False)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert [entry["version"] for entry in asyncio.run(ask())] == ["1.0"]
