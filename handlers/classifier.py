"""The flow of every handler: take a batch of requests, call the network once, and return one answer per request.

Steps::

    parse ──► decode ──► network ──► probabilities ──► encode
                   before()   after(), if the model has steps of its own (handlers/steps.py)
       └─ a Problem at any step answers only the request that caused it

The network is TorchScript. The signature beside it holds everything else about the model.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from ts.context import Context
from ts.service import PREDICTION_METRIC

from handlers import limits, problems, signature, torchscript
from handlers.inputs import compression, decoding, images, open_inference, options, requests
from handlers.inputs.decoding import Decoded
from handlers.inputs.options import Options
from handlers.inputs.requests import Request
from handlers.metrics import recorder, traces
from handlers.outputs import encoding, ood
from handlers.outputs import open_inference as inference_response
from handlers.preparation import Preparation
from handlers.steps import Steps, StepsError
from handlers.transport import pipeline
from handlers.transport.request_patterns import Bodies, Pattern

logger = logging.getLogger(__name__)

# Photographs per network call, instead of ``Preparation.chunk``: the network computes six views of each.
_CHUNK_PHOTOGRAPHS = 40
# Seconds of decoding after which a batch takes no further request, because TorchServe replaces a worker that does not
# answer its batch in time (response_timeout_s in models/catalog.py). Only large images take that long.
_DECODING_S = 5.0
VERSION_HEADER = "X-Model-Version"
# Out-of-memory messages of torch and oneDNN on a CPU, which raise a plain RuntimeError.
_OUT_OF_MEMORY = ("can't allocate memory", "could not create a primitive")


class _ParsedHeaders(NamedTuple):
    """A request's headers, parsed.

    Attributes:
        options: from the query string.
        answer_type: content type of the answer.
        json_length: length of the JSON part, if binary tensors follow it.
        encoding: of a compressed body, else empty.
        plain: whether they ask for a prediction in JSON without options, as most requests do.
    """

    options: Options
    answer_type: str
    json_length: int | None
    encoding: str
    plain: bool


class _Job(NamedTuple):
    """One decoded request of a batch, waiting for its probabilities.

    Attributes:
        position: of the request in its batch.
        examples: for the network, ``[N, *signature.prepared_shape]``.
        plain: whether the answer is one JSON object for one example, without options.
        ood: the out-of-distribution scores, float32 ``[N]``, if the answer holds them.
    """

    position: int
    request: Request
    decoded: Decoded
    examples: NDArray[Any]
    headers: _ParsedHeaders
    plain: bool
    ood: NDArray[np.float32] | None = None


class Classifier:
    """The base class of the handlers, which differ only in the kind of input.

    Attributes:
        kind: the input of the signatures that this handler accepts: ``image``, ``vector`` or ``tensor``.
    """

    kind: str

    def initialize(self, context: Context) -> None:
        """Load the network and the signature of the archive that TorchServe has unpacked.

        Raises:
            signature.SignatureError: the archive's signature is invalid, or for another handler.
            StepsError: the archive's steps cannot be loaded.
        """
        folder = Path(context.system_properties["model_dir"])
        torch.set_num_threads(torchscript.THREADS)
        self._signature = signature.read(folder / signature.FILE_NAME)
        if self._signature.input.kind != self.kind:
            raise signature.SignatureError(
                f"{signature.FILE_NAME}: input.kind must be {self.kind} for this handler, "
                f"got {self._signature.input.kind}"
            )
        gpu = context.system_properties.get("gpu_id")
        self._device = torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")
        self._inputs = Preparation(self._signature.input, self._device)
        path = folder / context.manifest["model"]["serializedFile"]
        self._scripted = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        self._network = torchscript.optimized(self._scripted, self._device)
        self._photographs: torch.jit.ScriptModule | None = None
        if self._signature.output.photograph_temperature:
            path = folder / signature.PHOTOGRAPHS_FILE_NAME
            self._photographs = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        steps = self._signature.steps
        self._steps = Steps(folder / signature.STEPS_FILE_NAME, steps) if steps else None
        self._ood = ood.read(folder) if self._signature.ood_threshold is not None else None
        self._encoder = encoding.encoder(self._signature.output)
        self._parse = requests.Parser().parse
        # Of the last request, because the next one usually has the same headers.
        self._headers: dict[str, str] | None = None
        # Of the last batch of one pattern, and the content type of its bodies if the fast path can answer them.
        self._pattern: Pattern | None = None
        self._content_type: str | None = None
        self._fast_path_failed = False
        self._plain_headers = {"content-type": encoding.JSON, VERSION_HEADER: self._signature.version}
        self._warm_up()
        continuous = (context.model_yaml_config or {}).get("continuousBatching") is True
        installed = pipeline.install(folder if continuous else None)
        self._recorder = recorder.open_recorder(
            self._signature,
            installed,
            # The registration without batches has another name (serving/torchserve/management.py).
            batched=context.model_name == self._signature.model,
        )
        self._traces = traces.open_writer(self._signature)
        # The frontend parses every line that a worker logs, so don't log one for each request.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ts").setLevel(logging.WARNING)
        if context.metrics:
            context.metrics.add_time = _without_prediction_time(context.metrics.add_time)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Return one body per request of a batch, and set their statuses and headers in ``context``."""
        batch = self._batch = recorder.Batch()
        start = time.time() if self._traces else 0.0
        answers = self._fast_path(data, context, batch) if type(data) is Bodies else None
        if answers is None:
            answers = self._slow_path(data, context, batch)
        if self._recorder:
            self._recorder.add(batch)
        if self._traces:
            self._traces.write(context, batch, start)
        return answers

    def _fast_path(self, data: Bodies, context: Context, batch: recorder.Batch) -> list[bytes] | None:
        """Answer plain requests of one pattern all at once; ``None`` if the slow path has to answer them."""
        began = time.perf_counter()
        if data.pattern is not self._pattern:
            self._pattern, self._content_type = data.pattern, self._plain_content_type(data, context)
        if self._content_type is None:
            return None
        try:
            values = decoding.pictures(data.values(), self._content_type, self._signature)
            if values is None:
                return None
            decoded = time.perf_counter()
            probabilities = self._activated(self._scores([values]))
        except Exception as error:
            # Fall back to one request at a time, so that the error reaches the request that caused it.
            batch.fast_path = "failed"
            if not self._fast_path_failed:
                logger.warning("The fast path failed; further failures are only counted", exc_info=error)
            self._fast_path_failed = True
            return None
        inferred = time.perf_counter()
        if not np.isfinite(probabilities).all():
            return None
        answers = self._encoder.objects(probabilities)
        context.request_processor.headers = self._plain_headers
        batch.fast_path = "answered"
        batch.answered = [self._content_type] * len(answers)
        batch.seconds = (decoded - began, inferred - decoded, time.perf_counter() - inferred)
        batch.probabilities = probabilities
        return answers

    def _plain_content_type(self, data: Bodies, context: Context) -> str | None:
        """The content type of bodies of one pattern; ``None`` if the requests are not ``plain``."""
        request = self._parse(data[0], context.get_all_request_header(0))
        try:
            headers = self._parse_headers(request)
        except problems.Problem:
            return None
        plain = headers.plain and headers.json_length is None and len(request.parts) == 1 and not self._steps
        return request.parts[0].content_type if plain else None

    def _slow_path(self, data: Sequence[Mapping[str, Any]], context: Context, batch: recorder.Batch) -> list[bytes]:
        """Decode and encode each request by itself."""
        answers = [b""] * len(data)
        jobs: list[_Job] = []
        began = time.perf_counter()
        for index, body in enumerate(data):
            request = self._parse(body, context.get_all_request_header(index))
            try:
                if index and time.perf_counter() - began > _DECODING_S:
                    raise problems.Unavailable("the service is busy with other large requests; try again in a moment")
                if request.task == "describe":
                    answers[index] = self._describe(context, index)
                else:
                    jobs.append(self._decode(index, request))
            except Exception as error:  # noqa: BLE001 (it must not fail the other requests)
                answers[index] = self._refuse(context, index, request, error)
        if not jobs:
            return answers
        decoded = time.perf_counter()
        try:
            scores = self._scores([job.examples for job in jobs])
            if self._steps:
                jobs, scores = self._after(context, self._steps, jobs, scores, answers)
                if not jobs:
                    return answers
            probabilities = self._activated(scores)
            self._answer_photographs([job.decoded for job in jobs], probabilities)
        except Exception as error:  # noqa: BLE001 (it must not fail the requests already answered)
            for job in jobs:
                answers[job.position] = self._refuse(context, job.position, job.request, error)
            return answers
        inferred = time.perf_counter()
        if all(job.plain for job in jobs) and np.isfinite(probabilities).all():
            # Encoding all answers at once takes a third of the time of one by one.
            for job, answer in zip(jobs, self._encoder.objects(probabilities), strict=True):
                answers[job.position] = answer
                context.get_response_headers(job.position).update(self._plain_headers)
            batch.answered = [recorder.content_type(job.request) for job in jobs]
        else:
            self._answer_each(context, jobs, probabilities, answers)
        batch.seconds = (decoded - began, inferred - decoded, time.perf_counter() - inferred)
        batch.probabilities = probabilities
        batch.ood = [job.ood for job in jobs if job.ood is not None]
        return answers

    def _answer_each(
        self, context: Context, jobs: Sequence[_Job], probabilities: NDArray[np.float32], answers: list[bytes]
    ) -> None:
        ends = itertools.accumulate(len(job.decoded.values) for job in jobs)
        for job, stop in zip(jobs, ends, strict=True):
            own = probabilities[stop - len(job.decoded.values) : stop]
            try:
                if not np.isfinite(own).all():
                    raise problems.Unprocessable(
                        "the network's output is not finite for these values; send smaller ones"
                    )
                answers[job.position] = self._answer(context, job, own)
                self._batch.answered.append(recorder.content_type(job.request, job.decoded.envelope))
            except Exception as error:  # noqa: BLE001 (it must not fail the other requests)
                answers[job.position] = self._refuse(context, job.position, job.request, error)

    def _decode(self, index: int, request: Request) -> _Job:
        if request.headers is not self._headers:
            self._parsed_headers = self._parse_headers(request)
            self._headers = request.headers
        headers = self._parsed_headers
        parts = request.parts
        if headers.encoding:
            parts = [part._replace(body=compression.decompress(part.body, headers.encoding)) for part in parts]
        decoded = decoding.decode(parts, self._signature, headers.options.prepare, headers.json_length)
        if isinstance(decoded.envelope, open_inference.Request):
            with_ood = bool(decoded.envelope.requested) and self._requests_ood(request, decoded.envelope)
        elif request.protocol == "grpc_oip":
            raise problems.Malformed('the request has no "inputs"; send the model\'s input tensor')
        else:
            with_ood = self._wants_ood(headers.options, decoded)
        if request.task == "explain":
            self._check_explainable(len(decoded.values), headers.answer_type)
        scores = self._ood.scores(decoded.values) if self._ood and with_ood and request.task == "predict" else None
        plain = headers.plain and decoded.single and scores is None
        examples = decoded.values
        if self._steps:
            examples = self._steps.before(examples, self._signature.prepared_shape)
        return _Job(index, request, decoded, examples, headers, plain, scores)

    def _after(
        self, context: Context, steps: Steps, jobs: Sequence[_Job], scores: torch.Tensor, answers: list[bytes]
    ) -> tuple[list[_Job], torch.Tensor]:
        """The jobs whose step after the network succeeds, and its results; the others are refused."""
        kept, results = [], []
        shape = (len(self._signature.output.labels),)
        outputs = torch.split(scores.to("cpu", torch.float32), [len(job.examples) for job in jobs])
        for job, own in zip(jobs, outputs, strict=True):
            try:
                results.append(torch.from_numpy(steps.after(own.numpy(), shape)))
                kept.append(job)
            except Exception as error:  # noqa: BLE001 (it must not fail the other requests)
                answers[job.position] = self._refuse(context, job.position, job.request, error)
        return kept, torch.cat(results or [scores])

    def _wants_ood(self, chosen: Options, decoded: Decoded) -> bool:
        """Whether an answer in the service's own JSON carries the out-of-distribution score."""
        if chosen.ood and not self._ood:
            raise problems.Unprocessable(
                f"version {self._signature.version} has no out-of-distribution score, which image models have if they "
                "are trained with this release; remove the option ood"
            )
        # Beside decoding and converting an image file, the score costs little.
        return decoded.has_converted if chosen.ood is None else chosen.ood

    def _parse_headers(self, request: Request) -> _ParsedHeaders:
        headers = request.headers
        parsed = options.parse(headers.get("x-query"), self._signature.output.labels)
        answer_type = encoding.negotiate(headers.get("accept", ""), self._answer_types(request))
        length = open_inference.read_json_length(headers.get("inference-header-content-length"))
        compressed = headers.get(compression.HEADER, "")
        plain = (
            parsed is options.DEFAULT and answer_type == encoding.JSON and request.task == "predict" and not compressed
        )
        # Answers to GRPCJob need one more header, see _set_headers.
        return _ParsedHeaders(parsed, answer_type, length, compressed, plain and request.protocol == "http")

    def _answer_types(self, request: Request) -> tuple[str, ...]:
        if request.task == "predict":
            return encoding.FORMS
        return (encoding.JSON, encoding.PNG) if self.kind == "image" else (encoding.JSON,)

    def _requests_ood(self, request: Request, envelope: open_inference.Request) -> bool:
        """Whether the out-of-distribution score is among the outputs that a request of the protocol names.

        Raises:
            problems.Unprocessable: it names an unknown one, which is refused before the network computes anything.
        """
        names: tuple[str, ...] = open_inference.EXPLANATION_OUTPUT_NAMES
        if request.task != "explain":
            names = inference_response.output_names(self._signature)
        return any(output.name == open_inference.OOD_OUTPUT_NAME for output in open_inference.outputs(envelope, names))

    def _check_explainable(self, count: int, answer_type: str) -> None:
        if self._signature.output.activation == "none":
            raise problems.Unprocessable("explanations are for models that classify; this model returns numbers")
        if self._steps:
            raise problems.Unprocessable(
                "this model has steps of its own before and after its network, and explanations need gradients of all"
            )
        if not any(parameter.requires_grad for parameter in self._scripted.parameters()):
            raise problems.Unprocessable(
                f"version {self._signature.version} is int8 or frozen and cannot be explained, because it has no "
                "gradients; use the version it was made from"
            )
        # Of larger examples fewer, as in each call of the network.
        limit = max(1, min(limits.EXPLAINED, self._inputs.chunk // 16))
        if count > limit:
            raise problems.TooLarge(f"explanations take up to {limit} examples per request, got {count}")
        if answer_type == encoding.PNG and count > 1:
            raise problems.NotAcceptable(
                f"{encoding.PNG} shows one explanation, got {count} images; send one, or accept {encoding.JSON}"
            )

    def _answer(self, context: Context, job: _Job, probabilities: NDArray[np.float32]) -> bytes:
        decoded, content_type = job.decoded, job.headers.answer_type
        wrapped = decoded.envelope == "predictions"
        length = None
        if job.request.task == "explain":
            body, content_type, length = self._explain(job, probabilities, wrapped)
        elif isinstance(decoded.envelope, open_inference.Request):
            body, content_type, length = inference_response.encode(
                decoded.envelope, probabilities, self._signature, job.ood
            )
        elif content_type == encoding.JSON:
            body = self._encoder.json(
                probabilities, decoded.single, wrapped, job.headers.options.top_k, self._more(job)
            )
        else:
            body = encoding.array(probabilities, content_type)
        if length is not None:
            context.set_response_header(job.position, open_inference.JSON_LENGTH_HEADER, str(length))
        self._set_headers(context, job.position, job.request, content_type)
        return body

    def _more(self, job: _Job) -> list[bytes]:
        """The members of each example's JSON object beyond the prediction."""
        count = len(job.decoded.values)
        members: list[dict[str, Any]] = [{} for _ in range(count)]
        if job.headers.options.picture:
            for member, picture in zip(members, self._pictures(job), strict=True):
                member["picture"] = images.encode(picture)
            for row, outline in job.decoded.outlines().items():
                members[row]["outline"] = images.encode_outline(outline)
        if job.ood is not None:
            for member, score in zip(members, job.ood, strict=True):
                member.update(ood=score, ood_threshold=self._signature.ood_threshold)
        return [encoding.members(**member) for member in members] if any(members) else []

    def _explain(self, job: _Job, probabilities: NDArray[np.float32], wrapped: bool) -> tuple[bytes, str, int | None]:
        """The body, its content type, and the length of its JSON if binary tensors follow it."""
        # Imported here because captum takes most of a second, and most workers never need it.
        from handlers.outputs import explanations

        decoded = job.decoded
        best = probabilities.argmax(1).tolist()
        target = job.headers.options.target
        targets = best if target is None else [target] * len(best)
        inputs = self._inputs(torch.from_numpy(decoded.values.copy()))
        attributions = explanations.explain(self._scripted, inputs, targets, self._signature)
        rows = list(decoded.outlines())
        if rows and self._photographs:
            attributions[rows] = explanations.explain(
                self._photographs, inputs[rows], [targets[row] for row in rows], self._signature
            )
        if job.headers.answer_type == encoding.PNG:
            return explanations.heat_map_png(self._pictures(job)[0], attributions[0]), encoding.PNG, None
        if isinstance(decoded.envelope, open_inference.Request):
            return inference_response.encode_explanations(decoded.envelope, targets, attributions, self._signature)
        body = self._encoder.explanations(probabilities, targets, attributions, decoded.single, wrapped)
        return body, encoding.JSON, None

    def _pictures(self, job: _Job) -> NDArray[np.uint8]:
        """The request's pictures as the network got them, uint8 ``[N, H, W]`` or ``[N, H, W, 3]``."""
        if self.kind != "image":
            raise problems.Unprocessable("picture=true is for image models; this model takes numbers")
        pictures: NDArray[np.uint8] = job.decoded.values.round().astype(np.uint8)
        # Picture files have their channels last.
        return pictures if pictures.ndim == 3 else np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))

    def _refuse(self, context: Context, index: int, request: Request, error: Exception) -> bytes:
        if not isinstance(error, problems.Problem):
            error = _problem(error)
        self._batch.refused.append((recorder.content_type(request), type(error)))
        context.set_response_status(error.status, error.phrase, index)
        self._set_headers(context, index, request, problems.CONTENT_TYPE)
        if request.protocol == "grpc_oip":
            # GRPCJob can parse only this form. Any other would cost TorchServe the worker.
            text = f"{error.status} {error.title}: {error.detail}"
            output = {"name": "error", "datatype": "BYTES", "shape": [1], "data": [text]}
            model = {"model_name": self._signature.model, "model_version": self._signature.version}
            return orjson.dumps({"id": "", **model, "outputs": [output]})
        # The gateway passes on a client's own request id, if it is a UUID, and puts it into the answer's headers.
        return error.body(request.headers.get("x-request-id") or context.get_request_id(index) or "")

    def _set_headers(self, context: Context, index: int, request: Request, content_type: str) -> None:
        context.set_response_content_type(index, content_type)
        # A gateway that splits requests between versions does not know which version TorchServe's default is.
        context.set_response_header(index, VERSION_HEADER, self._signature.version)
        if request.protocol == "grpc":
            # Without this header, an answer to StreamPredictions makes GRPCJob lose its worker.
            context.set_response_header(index, "ts_stream_next", "false")

    def _describe(self, context: Context, index: int) -> bytes:
        context.set_response_content_type(index, encoding.JSON)
        described = inference_response.metadata(self._signature, [self._signature.version])
        return orjson.dumps({**described, "signature": orjson.loads(self._signature.to_json())})

    def _scores(self, arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        """What the network returns for a batch, ``[sum of N, labels]``, or with steps any ``[sum of N, …]``.

        Args:
            arrays: ``[N, *signature.prepared_shape]`` each.
        """
        chunk = self._inputs.chunk
        count = sum(len(array) for array in arrays)
        full = count - count % chunk
        if missing := full + torchscript.padded_count(count - full) - count:
            arrays = [*arrays, np.zeros((missing, *self._signature.prepared_shape), arrays[0].dtype)]
        # torch warns about read-only arrays, such as a view of bytes; a copy is writable.
        values = arrays[0] if len(arrays) == 1 and arrays[0].flags.writeable else np.concatenate(arrays)
        with torch.inference_mode():
            chunks = [
                self._network(self._inputs(torch.from_numpy(values[start : start + chunk])))
                for start in range(0, len(values), chunk)
            ]
            scores = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
            return scores[:count] if missing else scores

    def _activated(self, scores: torch.Tensor) -> NDArray[np.float32]:
        """The probabilities, or a model's plain numbers, float32 ``[N, labels]``.

        For softmax each row sums to 1 within 1e-6.
        """
        output = self._signature.output
        # A sigmoid is part of the network, and numbers are its answer.
        if output.activation == "softmax":
            scores = (scores.to("cpu", torch.float64) / output.temperature).softmax(1)
        probabilities: NDArray[np.float32] = scores.to("cpu", torch.float32).numpy()
        return probabilities

    def _answer_photographs(self, requests_: Sequence[Decoded], probabilities: NDArray[np.float32]) -> None:
        """Overwrite the probabilities of the photographs of a batch, as ``_activated`` returned them."""
        temperature = self._signature.output.photograph_temperature
        if not (self._photographs and temperature):
            return
        starts = itertools.accumulate((len(decoded.values) for decoded in requests_), initial=0)
        with torch.inference_mode():
            for decoded, start in zip(requests_, starts, strict=False):
                rows = list(decoded.outlines())
                for first in range(0, len(rows), _CHUNK_PHOTOGRAPHS):
                    chosen = np.array(rows[first : first + _CHUNK_PHOTOGRAPHS])
                    scores = self._photographs(self._inputs(torch.from_numpy(decoded.values[chosen])))
                    scores = scores.to("cpu", torch.float64) / temperature
                    probabilities[start + chosen] = scores.softmax(1).to(torch.float32).numpy()

    def _warm_up(self) -> None:
        shape, chunk = self._signature.prepared_shape, self._inputs.chunk
        dtype = np.uint8 if self.kind == "image" and not self._steps else np.float32
        # TorchScript specializes a network in its first calls, and again for another batch size.
        for count in (1, 2, 1, 2, chunk):
            scores = self._scores([np.zeros((count, *shape), dtype)])
            if not self._steps:
                self._activated(scores)
            if self._photographs and count < chunk:
                with torch.inference_mode():
                    self._photographs(self._inputs(torch.zeros((count, *shape))))


def _without_prediction_time(add_time: Callable[..., None]) -> Callable[..., None]:
    """TorchServe's ``add_time`` without the time of each batch.

    Formatting that log line takes longer than reading a request, and the log level drops it.
    ``handlers.metrics.recorder`` records the same time.
    """

    def add(name: str, *arguments: Any, **options: Any) -> None:
        if name != PREDICTION_METRIC:
            add_time(name, *arguments, **options)

    return add


def _problem(error: Exception) -> problems.Problem:
    """Log an unexpected error and return its answer; end the process if the GPU is lost."""
    message = _message(error)
    if isinstance(error, torch.AcceleratorError) or message.startswith("CUDA error:"):
        # After such an error this process cannot use the device again. TorchServe starts a new worker.
        logger.critical("CUDA failed; ending this worker so that TorchServe starts a new one", exc_info=error)
        logging.shutdown()
        os._exit(1)
    if isinstance(error, torch.cuda.OutOfMemoryError) or message.startswith("CUDA out of memory"):
        torch.cuda.empty_cache()
        logger.error("Out of GPU memory while answering a request: %s", error)
        return problems.Unavailable("the GPU is out of memory; try again, or send fewer examples")
    if isinstance(error, StepsError):
        logger.error("%s", error, exc_info=error)
        return problems.Internal(f"{error}; the service's log has the reason")
    out_of_memory = isinstance(error, MemoryError) or any(text in message for text in _OUT_OF_MEMORY)
    reason = "Out of memory" if out_of_memory else "Unexpected error"
    logger.error("%s while answering a request", reason, exc_info=error)
    return problems.Internal("the service failed on this request; its log has the reason")


def _message(error: Exception) -> str:
    """The message of torch's RuntimeError; empty for other errors, whose text may quote a caller."""
    if not isinstance(error, RuntimeError):
        return ""
    message = str(error)
    # TorchScript turns any error into a plain RuntimeError, with a traceback before the original message
    # (https://github.com/pytorch/pytorch/issues/148642).
    inner = message.partition("\nRuntimeError: ")[2]
    return inner if inner and message.startswith("The following operation failed in the TorchScript") else message
