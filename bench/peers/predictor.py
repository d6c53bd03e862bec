"""The predictor of every peer: bodies to answers, with the network and the optimizations of this service.

Environment variables configure a peer's process: ``PEER_ARTIFACT`` (the folder with ``model.pt`` and
``signature.json``), ``PEER_FORM`` (``raw`` or ``png``), ``PEER_PORT``, ``PEER_WORKERS``, ``PEER_BATCH`` (largest
batch) and ``PEER_WAIT_MS`` (how long a batch may wait to fill).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from PIL import Image

from handlers.torchscript import THREADS, optimized

PORT = int(os.environ.get("PEER_PORT", "0"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))
BATCH = int(os.environ.get("PEER_BATCH", "32"))
WAIT_MS = float(os.environ.get("PEER_WAIT_MS", "1"))


class Predictor:
    """One network on the CPU with this service's threads, the same for each worker of every server."""

    def __init__(self) -> None:
        torch.set_num_threads(THREADS)
        folder = Path(os.environ["PEER_ARTIFACT"])
        signature = json.loads((folder / "signature.json").read_text())
        self._input, self._output = signature["input"], signature["output"]
        network = torch.jit.load(str(folder / "model.pt")).eval()  # type: ignore[no-untyped-call]
        self._network = optimized(network, torch.device("cpu"))
        self._is_png = os.environ["PEER_FORM"] == "png"
        for count in (1, 2, 1, 2, BATCH):
            self.probabilities(np.zeros((count, *self._input["shape"]), np.uint8))

    def __call__(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The JSON answer to each body; a body is a PNG or the pixels of one image."""
        return self.answers(self.probabilities(np.stack([self.decode(body) for body in bodies])))

    def decode(self, body: bytes) -> NDArray[np.uint8]:
        """One gray image, uint8 ``[height, width]``."""
        pixels: NDArray[np.uint8]
        if self._is_png:
            pixels = np.asarray(Image.open(io.BytesIO(body)), np.uint8)
        else:
            pixels = np.frombuffer(body, np.uint8).reshape(self._input["shape"])
        return pixels

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 ``[N, labels]`` of images uint8 ``[N, height, width]``."""
        spec = self._input
        with torch.inference_mode():
            values = torch.from_numpy(images)
            if spec["padding"]:
                values = torch.nn.functional.pad(values, (spec["padding"],) * 4)
            values = (values.float() * spec["gain"] + spec["bias"]).reshape(-1, *spec["network_shape"])
            rows: NDArray[np.float32] = (self._network(values) / self._output["temperature"]).softmax(1).numpy()
        return rows

    def answers(self, probabilities: NDArray[np.float32]) -> list[bytes]:
        """This service's answer for each row of probabilities."""
        labels = self._output["labels"]
        return [
            orjson.dumps(
                {
                    "class": best,
                    "label": labels[best],
                    "probability": row[best],
                    "probabilities": dict(zip(labels, row, strict=True)),
                }
            )
            for best, row in zip(probabilities.argmax(1).tolist(), probabilities.tolist(), strict=True)
        ]
