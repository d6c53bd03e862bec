"""MLServer: a custom runtime with adaptive batching; images as base64 in the Open Inference Protocol's JSON."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.predictor import BATCH, PORT, WAIT_MS, WORKERS, Predictor


class Classify(MLModel):
    async def load(self) -> bool:
        self._predictor = Predictor()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._predictor(Base64Codec.decode_input(payload.inputs[0]))
        output = StringCodec.encode_output("answer", [answer.decode() for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve() -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_port=PORT + 2,
        # 0 keeps the network in the server's process.
        parallel_workers=WORKERS if WORKERS > 1 else 0,
        debug=False,
        logging_settings="logging.ini",
        use_structured_logging=False,
    )
    model = ModelSettings(
        name="classifier",
        implementation=Classify,
        max_batch_size=BATCH,
        max_batch_time=WAIT_MS / 1000 if BATCH > 1 else 0,
    )
    await MLServer(settings).start([model])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("logging.ini").write_text(
            "[loggers]\nkeys=root\n[handlers]\nkeys=none\n[formatters]\nkeys=\n"
            "[logger_root]\nlevel=ERROR\nhandlers=none\n[handler_none]\nclass=NullHandler\nargs=()\n"
        )
        asyncio.run(serve())


if __name__ == "__main__":
    main()
