"""What every handler does: a batch of requests in, one answer for each out, one network call for all of them.

    sort ──► decode ──► network ──► probabilities ──► encode
      └─ a Problem at any step answers its own request and leaves the others alone

The network is TorchScript; the signature beside it says everything else about the model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from handlers import decoding, encoding, incoming, oip, options, problems, signature
from handlers.decoding import Decoded
from handlers.incoming import Request
from handlers.options import Options

logger = logging.getLogger(__name__)


class Context(Protocol):
    """The part of ``ts.context.Context`` that a handler uses."""

    manifest: dict[str, Any]
    model_yaml_config: dict[str, Any]

    @property
    def system_properties(self) -> dict[str, Any]: ...
    def get_all_request_header(self, idx: int) -> dict[str, Any]: ...
    def get_request_id(self, idx: int = 0) -> str | None: ...
    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None: ...
    def set_response_content_type(self, idx: int, value: str) -> None: ...
    def set_response_header(self, idx: int, key: str, value: str) -> None: ...


class _Job(NamedTuple):
    """One readable request of a batch, waiting for its probabilities."""

    place: int
    request: Request
    decoded: Decoded
    options: Options
    form: str


class Classifier:
    """The base of the handlers: they differ in the kind of input alone."""

    kind: str

    def initialize(self, context: Context) -> None:
        """Load the network and the signature of the archive that TorchServe has unpacked.

        Raises:
            SignatureError: the archive's signature does not fit this handler.
        """
        folder = Path(context.system_properties["model_dir"])
        config = context.model_yaml_config or {}
        torch.set_num_threads(int(config.get("threads", 1)))
        self._chunk_size = int(config.get("chunk_size", 256))
        self._signature = signature.read(folder / signature.FILE_NAME)
        if self._signature.input.kind != self.kind:
            raise signature.SignatureError(
                f"{signature.FILE_NAME}: input.kind is {self._signature.input.kind}, this handler takes {self.kind}"
            )
        gpu = context.system_properties.get("gpu_id")
        self._device = torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")
        path = folder / context.manifest["model"]["serializedFile"]
        self._scripted = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        self._network = torch.jit.freeze(self._scripted)
        self._encoder = encoding.Encoder(self._signature.output)
        self._warm_up()
        # A line for each request, from here or from TorchServe's modules, is read and matched by the frontend.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ts").setLevel(logging.WARNING)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch: one body for each request, with its status and content type set in ``context``."""
        answers = [b""] * len(data)
        jobs: list[_Job] = []
        for index, body in enumerate(data):
            request = incoming.sort(body, context.get_all_request_header(index))
            try:
                job = self._read(index, request)
            except Exception as error:
                answers[index] = self._refuse(context, index, error)
                continue
            if job is None:
                answers[index] = self._describe(context, index)
            else:
                jobs.append(job)
        if not jobs:
            return answers
        try:
            probabilities = self._probabilities([job.decoded.values for job in jobs])
        except Exception as error:
            _exit_if_lost(error)
            for job in jobs:
                answers[job.place] = self._refuse(context, job.place, error)
            return answers
        start = 0
        for job in jobs:
            stop = start + len(job.decoded.values)
            try:
                answers[job.place] = self._answer(context, job, probabilities[start:stop])
            except Exception as error:
                answers[job.place] = self._refuse(context, job.place, error)
            start = stop
        return answers

    def _read(self, index: int, request: Request) -> _Job | None:
        headers = request.headers
        if headers.get("describe") == "True":
            return None
        asked = options.parse(headers.get("x-query"), self._signature.output.labels)
        form = encoding.negotiate(headers.get("accept", ""))
        length = oip.read_json_length(headers.get("inference-header-content-length"))
        return _Job(index, request, decoding.decode(request.parts, self._signature, asked.prepare, length), asked, form)

    def _answer(self, context: Context, job: _Job, probabilities: NDArray[np.float32]) -> bytes:
        decoded = job.decoded
        if type(decoded.envelope) is oip.Request:
            body, content_type, length = oip.encode(decoded.envelope, probabilities, self._signature)
            if length is not None:
                context.set_response_header(job.place, oip.JSON_LENGTH_HEADER, str(length))
        elif job.form == encoding.JSON:
            content_type = job.form
            body = self._encoder.json(probabilities, decoded.single, decoded.envelope == "predictions", job.options)
        else:
            content_type, body = job.form, encoding.array(probabilities, job.form)
        context.set_response_content_type(job.place, content_type)
        return body

    def _refuse(self, context: Context, index: int, error: Exception) -> bytes:
        if not isinstance(error, problems.Problem):
            logger.error("A request failed by a fault of this service", exc_info=error)
            error = problems.Internal("the service failed on this request; its log has the reason")
        context.set_response_status(error.status, error.phrase, index)
        context.set_response_content_type(index, problems.CONTENT_TYPE)
        return error.body(context.get_request_id(index) or "")

    def _describe(self, context: Context, index: int) -> bytes:
        context.set_response_content_type(index, encoding.JSON)
        described = oip.metadata(self._signature, [self._signature.version])
        return orjson.dumps({**described, "signature": orjson.loads(self._signature.to_json())})

    def _probabilities(self, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        output = self._signature.output
        with torch.inference_mode():
            scores = self._scores(torch.from_numpy(values))
            scores = scores.to("cpu", torch.float64) / output.temperature
            found = scores.softmax(1) if output.activation == "softmax" else scores.sigmoid()
        return found.to(torch.float32).numpy()

    def _scores(self, values: torch.Tensor) -> torch.Tensor:
        chunks = [self._network(self._inputs(chunk)) for chunk in torch.split(values, self._chunk_size)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _inputs(self, values: torch.Tensor) -> torch.Tensor:
        given = self._signature.input
        values = values.to(self._device)
        if given.padding:
            values = torch.nn.functional.pad(values, (given.padding,) * 4)
        values = values.to(torch.float32) * given.gain
        if given.bias:
            values += given.bias
        return values.reshape(-1, *given.network_shape)

    def _warm_up(self) -> None:
        shape = self._signature.input.shape
        # TorchScript specialises a network in its first calls, and once more for a batch of another size.
        for count in (1, 2, 1, 2, self._chunk_size):
            self._probabilities([np.zeros((count, *shape), np.uint8 if self.kind == "image" else np.float32)])


def _exit_if_lost(error: Exception) -> None:
    """End the process after a CUDA fault: the context is lost, and the frontend starts a new worker."""
    if "CUDA" in str(error):
        logger.critical("CUDA failed; this worker ends and a new one takes its place", exc_info=error)
        logging.shutdown()
        os._exit(1)
