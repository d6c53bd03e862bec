"""mosec: a Rust server, one Python process per worker, dynamic batches of raw bodies."""

from __future__ import annotations

from mosec import Server, Worker

from bench.peers.predictor import BATCH, WAIT_MS, WORKERS, Predictor


class Classify(Worker):
    resp_mime_type = "application/json"

    def __init__(self) -> None:
        self._predictor = Predictor()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes | list[bytes]) -> bytes | list[bytes]:
        # With a batch size of 1, mosec passes the body itself instead of a list.
        return self._predictor(data) if isinstance(data, list) else self._predictor([data])[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classify, num=WORKERS, max_batch_size=BATCH, max_wait_time=int(WAIT_MS))
    server.run()
