"""LitServe: JSON requests as in its documentation, with dynamic batches and one server process per worker."""

from __future__ import annotations

import base64
from typing import Any

import litserve
from starlette.responses import Response

from bench.peers.predictor import BATCH, PORT, WAIT_MS, WORKERS, Predictor


class Classify(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 (its name is part of the interface)
        self._predictor = Predictor()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._predictor(x) if isinstance(x, list) else self._predictor([x])[0]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Classify(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    # LitServe starts as many API servers as workers by default.
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, access_log=False, log_level="warning")
