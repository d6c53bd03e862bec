"""Triton's extensions, where the answers of the front door and of the bridge do not show them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np

from handlers.metrics.recorder import Batch, Recorder
from serving.sidecars.triton import Extensions
from serving.torchserve.management import Model, Worker
from tests.support.signatures import FASHION


class Registered:
    """TorchServe with these versions of one model, each with a worker on a GPU."""

    def __init__(self, *versions: str) -> None:
        self._models = [Model("fashion", version, 1, 0, 100, (Worker("1", 1, True, True),)) for version in versions]

    async def versions(self, *_: str) -> list[Model]:
        return self._models

    async def model(self, *_: str) -> Model:
        return self._models[0]

    async def metadata(self, *_: str) -> dict[str, Any]:
        return {"platform": "pytorch_torchscript", "inputs": [], "outputs": []}


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
    extensions = Extensions(Registered("1.0"), tmp_path)  # type: ignore[arg-type]
    config = asyncio.run(extensions.config("fashion", ""))
    assert config["instance_group"] == [{"name": "fashion", "count": 1, "kind": "KIND_GPU"}]
