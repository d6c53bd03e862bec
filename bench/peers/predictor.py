"""What every peer calls: bodies in, answers out, by the network and the optimisations of this service.

A peer's process is told by environment variables what to serve: ``PEER_ARTIFACT`` (the folder with ``model.pt`` and
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

from handlers.torchscript import OptimizedNetwork

PORT = int(os.environ.get("PEER_PORT", "0"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))
BATCH = int(os.environ.get("PEER_BATCH", "32"))
WAIT_MS = float(os.environ.get("PEER_WAIT_MS", "1"))


class Predictor:
    """One network on the CPU, with one thread, as each worker of every server has it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        folder = Path(os.environ["PEER_ARTIFACT"])
        signature = json.loads((folder / "signature.json").read_text())
        self._input, self._output = signature["input"], signature["output"]
        network = torch.jit.load(str(folder / "model.pt")).eval()  # type: ignore[no-untyped-call]
        self._network = OptimizedNetwork(network, torch.device("cpu"))
        self._is_png = os.environ["PEER_FORM"] == "png"
        for count in (1, 2, 1, 2, BATCH):
            self.probabilities(np.zeros((count, *self._input["shape"]), np.uint8))

    def __call__(self, bodies: Sequence[bytes]) -> list[bytes]:
        """The JSON answer to each body, a whole PNG or the pixels of one image."""
        return self.answers(self.probabilities(np.stack([self.decode(body) for body in bodies])))

    def decode(self, body: bytes) -> NDArray[np.uint8]:
        """One grey image, uint8 ``[height, width]``."""
        pixels: NDArray[np.uint8]
        if self._is_png:
            pixels = np.asarray(Image.open(io.BytesIO(body)), np.uint8)
        else:
            pixels = np.frombuffer(body, np.uint8).reshape(self._input["shape"])
        return pixels

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 ``[N, labels]`` of images uint8 ``[N, height, width]``."""
        given = self._input
        with torch.inference_mode():
            values = torch.from_numpy(images)
            if given["padding"]:
                values = torch.nn.functional.pad(values, (given["padding"],) * 4)
            values = (values.float() * given["gain"] + given["bias"]).reshape(-1, *given["network_shape"])
            found: NDArray[np.float32] = (self._network(values) / self._output["temperature"]).softmax(1).numpy()
        return found

    def answers(self, probabilities: NDArray[np.float32]) -> list[bytes]:
        """What this service answers, for each row of probabilities."""
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
