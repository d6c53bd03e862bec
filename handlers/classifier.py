"""What every handler does: a batch of requests in, one answer for each out, one network call for all of them.

Steps::

    parse ──► decode ──► network ──► probabilities ──► encode
       └─ a Problem at any step answers its own request and leaves the others alone

The network is TorchScript; the signature beside it says everything else about the model.
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

from handlers import limits, problems, signature
from handlers.inputs import decoding, images, open_inference, options, requests
from handlers.inputs.decoding import Decoded
from handlers.inputs.options import Options
from handlers.inputs.requests import Request
from handlers.metrics import recorder
from handlers.outputs import encoding
from handlers.outputs import open_inference as inference_response
from handlers.torchscript import OptimizedNetwork
from handlers.transport import pipeline
from handlers.transport.request_patterns import Bodies, Pattern

logger = logging.getLogger(__name__)

# Examples that go through the network at once; more fall out of the CPU's cache.
_CHUNK = 256
VERSION_HEADER = "X-Model-Version"
# Out-of-memory messages of torch and oneDNN on a CPU, which raise a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "could not create a primitive")


class _Asked(NamedTuple):
    """What a request's headers ask for.

    Attributes:
        plain: a prediction in JSON without options: the usual request.
    """

    options: Options
    form: str
    json_length: int | None
    plain: bool


class _Job(NamedTuple):
    """One readable request of a batch, waiting for its probabilities.

    Attributes:
        plain: one example, to be answered with one JSON object without options.
    """

    place: int
    request: Request
    decoded: Decoded
    asked: _Asked
    plain: bool


class Classifier:
    """The base of the handlers: they differ in the kind of input alone."""

    kind: str

    def initialize(self, context: Context) -> None:
        """Load the network and the signature of the archive that TorchServe has unpacked.

        Raises:
            signature.SignatureError: the archive's signature is not valid or does not fit this handler.
        """
        folder = Path(context.system_properties["model_dir"])
        torch.set_num_threads(1)
        self._signature = signature.read(folder / signature.FILE_NAME)
        if self._signature.input.kind != self.kind:
            raise signature.SignatureError(
                f"{signature.FILE_NAME}: input.kind is {self._signature.input.kind}, this handler takes {self.kind}"
            )
        gpu = context.system_properties.get("gpu_id")
        self._device = torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")
        path = folder / context.manifest["model"]["serializedFile"]
        self._scripted = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        self._network = OptimizedNetwork(self._scripted, self._device)
        self._encoder = encoding.Encoder(self._signature.output)
        self._parse = requests.Parser().parse
        # Of the last request, as the next one mostly has the same headers.
        self._headers: dict[str, str] | None = None
        # Of the last requests that were alike; the content type of their bodies, if they ask for what is usual.
        self._pattern: Pattern | None = None
        self._content_type: str | None = None
        self._fast_path_failed = False
        self._plain_headers = {"content-type": encoding.JSON, VERSION_HEADER: self._signature.version}
        self._recorder = recorder.open_recorder(self._signature)
        self._warm_up()
        continuous = (context.model_yaml_config or {}).get("continuousBatching") is True
        pipeline.install(folder if continuous else None)
        # A line for each request, from here or from TorchServe's modules, is read and matched by the frontend.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ts").setLevel(logging.WARNING)
        if context.metrics:
            context.metrics.add_time = _without_prediction_time(context.metrics.add_time)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch: one body for each request, with its status and content type set in ``context``."""
        batch = self._batch = recorder.Batch()
        answers = self._answer_alike(data, context, batch) if type(data) is Bodies else None
        if answers is None:
            answers = self._answers(data, context, batch)
        if self._recorder:
            self._recorder.add(batch)
        return answers

    def _answer_alike(self, data: Bodies, context: Context, batch: recorder.Batch) -> list[bytes] | None:
        """The answers to usual requests that are alike, all at once; ``None`` where each is looked at by itself."""
        began = time.perf_counter()
        if data.pattern is not self._pattern:
            self._pattern, self._content_type = data.pattern, self._usual_type(data, context)
        if self._content_type is None:
            return None
        try:
            values = decoding.pictures(data.values(), self._content_type, self._signature)
            if values is None:
                return None
            decoded = time.perf_counter()
            probabilities = self._probabilities([values])
        except Exception as error:
            # Fall back to one request at a time, so that the error reaches the request that caused it.
            batch.fast_path = "failed"
            if not self._fast_path_failed:
                logger.warning("The fast path failed; this worker logs that once and counts it", exc_info=error)
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

    def _usual_type(self, data: Bodies, context: Context) -> str | None:
        """The content type of bodies that are alike; ``None`` unless each asks for a plain prediction (``_Asked``)."""
        request = self._parse(data[0], context.get_all_request_header(0))
        try:
            asked = self._ask(request)
        except problems.Problem:
            return None
        usual = asked.plain and asked.json_length is None and len(request.parts) == 1
        return request.parts[0].content_type if usual else None

    def _answers(self, data: Sequence[Mapping[str, Any]], context: Context, batch: recorder.Batch) -> list[bytes]:
        answers = [b""] * len(data)
        jobs: list[_Job] = []
        began = time.perf_counter()
        for place, body in enumerate(data):
            request = self._parse(body, context.get_all_request_header(place))
            try:
                if request.task == "describe":
                    answers[place] = self._describe(context, place)
                else:
                    jobs.append(self._read(place, request))
            except Exception as error:
                answers[place] = self._refuse(context, place, request, error)
        if not jobs:
            return answers
        decoded = time.perf_counter()
        try:
            probabilities = self._probabilities([job.decoded.values for job in jobs])
        except Exception as error:
            for job in jobs:
                answers[job.place] = self._refuse(context, job.place, job.request, error)
            return answers
        inferred = time.perf_counter()
        if all(job.plain for job in jobs) and np.isfinite(probabilities).all():
            # To write all answers at once takes a third of the time of one after another.
            for job, answer in zip(jobs, self._encoder.objects(probabilities), strict=True):
                answers[job.place] = answer
                context.get_response_headers(job.place).update(self._plain_headers)
            batch.answered = [recorder.content_type(job.request) for job in jobs]
        else:
            self._answer_each(context, jobs, probabilities, answers)
        batch.seconds = (decoded - began, inferred - decoded, time.perf_counter() - inferred)
        batch.probabilities = probabilities
        return answers

    def _answer_each(
        self, context: Context, jobs: Sequence[_Job], probabilities: NDArray[np.float32], answers: list[bytes]
    ) -> None:
        ends = itertools.accumulate(len(job.decoded.values) for job in jobs)
        for job, stop in zip(jobs, ends, strict=True):
            found = probabilities[stop - len(job.decoded.values) : stop]
            try:
                if not np.isfinite(found).all():
                    raise problems.Unprocessable("the values are so large that the network has no answer to them")
                answers[job.place] = self._answer(context, job, found)
                self._batch.answered.append(recorder.content_type(job.request, job.decoded.envelope))
            except Exception as error:
                answers[job.place] = self._refuse(context, job.place, job.request, error)

    def _read(self, place: int, request: Request) -> _Job:
        if request.headers is not self._headers:
            self._asked = self._ask(request)
            self._headers = request.headers
        asked = self._asked
        decoded = decoding.decode(request.parts, self._signature, asked.options.prepare, asked.json_length)
        if request.protocol == "grpc_oip" and not isinstance(decoded.envelope, open_inference.Request):
            raise problems.Malformed("an inference request needs inputs")
        if request.task == "explain":
            self._check_explainable(len(decoded.values), asked.form)
        return _Job(place, request, decoded, asked, asked.plain and decoded.single)

    def _ask(self, request: Request) -> _Asked:
        headers = request.headers
        given = options.parse(headers.get("x-query"), self._signature.output.labels)
        form = encoding.negotiate(headers.get("accept", ""), self._forms(request))
        length = open_inference.read_json_length(headers.get("inference-header-content-length"))
        plain = given is options.DEFAULT and form == encoding.JSON and request.task == "predict"
        # GRPCJob needs one header more, see _complete.
        return _Asked(given, form, length, plain and request.protocol == "http")

    def _forms(self, request: Request) -> tuple[str, ...]:
        if request.task == "predict":
            return encoding.FORMS
        return (encoding.JSON, encoding.PNG) if self.kind == "image" else (encoding.JSON,)

    def _check_explainable(self, count: int, form: str) -> None:
        if not any(parameter.requires_grad for parameter in self._scripted.parameters()):
            raise problems.Unprocessable(
                f"version {self._signature.version} is int8 and has no gradients to explain an answer by; "
                "ask the version that it was made from"
            )
        if count > limits.EXPLAINED:
            raise problems.TooLarge(f"{count} examples to explain in one request; the limit is {limits.EXPLAINED}")
        if form == encoding.PNG and count > 1:
            raise problems.NotAcceptable(
                f"{encoding.PNG} can show one explanation, and the request holds {count} images"
            )

    def _answer(self, context: Context, job: _Job, probabilities: NDArray[np.float32]) -> bytes:
        decoded, content_type = job.decoded, job.asked.form
        wrapped = decoded.envelope == "predictions"
        if job.request.task == "explain":
            body = self._explain(job, probabilities, wrapped)
        elif isinstance(decoded.envelope, open_inference.Request):
            body, content_type, length = inference_response.encode(decoded.envelope, probabilities, self._signature)
            if length is not None:
                context.set_response_header(job.place, open_inference.JSON_LENGTH_HEADER, str(length))
        elif content_type == encoding.JSON:
            pictures = [images.encode(picture) for picture in self._pictures(job)] if job.asked.options.picture else []
            body = self._encoder.json(probabilities, decoded.single, wrapped, job.asked.options.top_k, pictures)
        else:
            body = encoding.array(probabilities, content_type)
        self._complete(context, job.place, job.request, content_type)
        return body

    def _explain(self, job: _Job, probabilities: NDArray[np.float32], wrapped: bool) -> bytes:
        # captum takes most of a second to import, and most workers never need it.
        from handlers.outputs import explanations

        decoded = job.decoded
        best = probabilities.argmax(1).tolist()
        targets = best if job.asked.options.target is None else [job.asked.options.target] * len(best)
        inputs = self._inputs(torch.from_numpy(decoded.values.copy()))
        attributions = explanations.explain(self._scripted, inputs, targets, self._signature)
        if job.asked.form == encoding.PNG:
            return explanations.heat_map_png(self._pictures(job)[0], attributions[0])
        return self._encoder.explanations(probabilities, targets, attributions, decoded.single, wrapped)

    def _pictures(self, job: _Job) -> NDArray[np.uint8]:
        if self.kind != "image":
            raise problems.Unprocessable("picture=true needs a model that takes images")
        pictures: NDArray[np.uint8] = job.decoded.values.round().astype(np.uint8)
        return pictures

    def _refuse(self, context: Context, place: int, request: Request, error: Exception) -> bytes:
        if not isinstance(error, problems.Problem):
            error = _problem(error)
        self._batch.refused.append((recorder.content_type(request), type(error)))
        context.set_response_status(error.status, error.phrase, place)
        self._complete(context, place, request, problems.CONTENT_TYPE)
        if request.protocol == "grpc_oip":
            # GRPCJob knows no other form of answer, and loses its worker over one.
            text = f"{error.status} {error.title}: {error.detail}"
            output = {"name": "error", "datatype": "BYTES", "shape": [1], "data": [text]}
            named = {"model_name": self._signature.model, "model_version": self._signature.version}
            return orjson.dumps({"id": "", **named, "outputs": [output]})
        # The gateway passes on a client's own id, if it is a UUID, and names the answer by it.
        return error.body(request.headers.get("x-request-id") or context.get_request_id(place) or "")

    def _complete(self, context: Context, place: int, request: Request, content_type: str) -> None:
        context.set_response_content_type(place, content_type)
        # A gateway that splits requests between versions cannot know which one a default led to.
        context.set_response_header(place, VERSION_HEADER, self._signature.version)
        if request.protocol == "grpc":
            # GRPCJob loses its worker over an answer to StreamPredictions without this header.
            context.set_response_header(place, "ts_stream_next", "false")

    def _describe(self, context: Context, place: int) -> bytes:
        context.set_response_content_type(place, encoding.JSON)
        described = inference_response.metadata(self._signature, [self._signature.version])
        return orjson.dumps({**described, "signature": orjson.loads(self._signature.to_json())})

    def _probabilities(self, arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The batch's probabilities, float32 ``[sum of N, labels]``; each row sums to 1 within 1e-6 for softmax."""
        # torch warns of arrays that it might write to but must not, such as a view of bytes; a copy is writable.
        values = arrays[0] if len(arrays) == 1 and arrays[0].flags.writeable else np.concatenate(arrays)
        output = self._signature.output
        with torch.inference_mode():
            chunks = [
                self._network(self._inputs(torch.from_numpy(values[start : start + _CHUNK])))
                for start in range(0, len(values), _CHUNK)
            ]
            scores = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
            # A sigmoid is part of its network already.
            if output.activation == "softmax":
                scores = (scores.to("cpu", torch.float64) / output.temperature).softmax(1)
            probabilities: NDArray[np.float32] = scores.to("cpu", torch.float32).numpy()
        return probabilities

    def _inputs(self, values: torch.Tensor) -> torch.Tensor:
        """Examples ``[N, *shape]`` as the network takes them: float32 ``[N, *network_shape]`` on its device."""
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
        for count in (1, 2, 1, 2, _CHUNK):
            self._probabilities([np.zeros((count, *shape), np.uint8 if self.kind == "image" else np.float32)])


def _without_prediction_time(add_time: Callable[..., None]) -> Callable[..., None]:
    """TorchServe's ``add_time`` without the time of each batch: to make that line takes longer than reading a request.

    The log level drops it, and ``handlers.metrics.recorder`` has counts of the same.
    """

    def add(name: str, *arguments: Any, **more: Any) -> None:
        if name != PREDICTION_METRIC:
            add_time(name, *arguments, **more)

    return add


def _problem(error: Exception) -> problems.Problem:
    """Log an unexpected error and return its answer; end the process if the GPU is lost."""
    message = _message(error)
    if isinstance(error, torch.AcceleratorError) or message.startswith("CUDA error:"):
        # Nothing works on the device in this process any more, and TorchServe starts a new worker.
        logger.critical("CUDA failed; this worker ends so that a new one takes its place", exc_info=error)
        logging.shutdown()
        os._exit(1)
    if isinstance(error, torch.cuda.OutOfMemoryError) or message.startswith("CUDA out of memory"):
        torch.cuda.empty_cache()
        logger.error("Out of GPU memory while answering a request: %s", error)
        return problems.Unavailable("the GPU is out of memory; try again, or send fewer examples")
    no_memory = isinstance(error, MemoryError) or any(text in message for text in _NO_MEMORY)
    logger.error("%s while answering a request", "Out of memory" if no_memory else "Unexpected error", exc_info=error)
    return problems.Internal("the service failed on this request; its log has the reason")


def _message(error: Exception) -> str:
    """What torch says in a RuntimeError; empty for other errors, whose text may quote a caller."""
    if not isinstance(error, RuntimeError):
        return ""
    message = str(error)
    # TorchScript raises a plain RuntimeError whatever the type was, with its traceback before the message
    # (https://github.com/pytorch/pytorch/issues/148642).
    inner = message.partition("\nRuntimeError: ")[2]
    return inner if inner and message.startswith("The following operation failed in the TorchScript") else message
