"""BentoML: a batchable API behind its own dispatcher; images as base64 in JSON."""

from __future__ import annotations

import base64
import json

import bentoml

from bench.peers.predictor import BATCH, WAIT_MS, WORKERS, Predictor

# `max_latency_ms` is BentoML's limit for waiting and computing together. It refuses a batch size of 1.
BATCHES = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": int(1000 * WAIT_MS)} if BATCH > 1 else {}


@bentoml.service(
    workers=WORKERS,
    traffic={"timeout": 30, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classify:
    def __init__(self) -> None:
        self._predictor = Predictor()

    @bentoml.api(**BATCHES)
    def predict(self, images: list[str]) -> list[dict]:  # type: ignore[type-arg]
        return [json.loads(answer) for answer in self._predictor([base64.b64decode(image) for image in images])]
