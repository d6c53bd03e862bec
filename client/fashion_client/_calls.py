"""The service's calls as data: the request of each, and the function that reads its answer.

Both clients use them. A reader raises ``ProblemError`` if the answer is a problem, and ``AnswerError`` if it
does not have the expected form.
"""

from __future__ import annotations

import dataclasses
import functools
import http.client
import io
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fashion_client import retrying
from fashion_client._inputs import NPY, Array, Example, encode
from fashion_client.errors import AnswerError, FashionError, InputError, Problem, problem_error
from fashion_client.results import Explanation, Model, Prediction, Predictions, Tensor

JSON = "application/json"
PNG = "image/png"

T = TypeVar("T")

# CPython 3.11's ast.literal_eval, with which numpy reads the header of a .npy file, can raise SystemError when
# several threads call it at once (python/cpython#106905).
NPY_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP response.

    Attributes:
        url: the request's URL, for messages.
        status: the status code.
        headers: a case-insensitive mapping.
        body: the whole content.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclasses.dataclass(frozen=True)
class Call(Generic[T]):
    """One HTTP request, and the reader of its answer.

    Attributes:
        method: ``GET`` or ``POST``.
        path: quoted, starting with ``/``.
        read: checks the answer and converts it to the result.
        headers: headers of this request, in addition to the client's.
        params: the query string's parameters.
        body: the content; None for a request without content.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    headers: Mapping[str, str]
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None


def models() -> Call[tuple[str, ...]]:
    """Request the names of all models."""
    return _get("/v1/models", _models)


def model(name: str) -> Call[Model]:
    """Request a model's metadata, as the Open Inference Protocol defines it."""
    return _get(_path("/v2/models", name), _model)


def ready() -> Call[bool]:
    """Request whether the service is ready for predictions."""
    return _get("/readyz", _ready)


def prediction(model: str, version: str | None, top_k: int | None, example: Example) -> Call[Prediction]:
    """Request the prediction for one example.

    Raises:
        InputError: an argument cannot be sent. The reader raises it too, if the body held several examples.
    """
    if top_k is not None and top_k < 1:
        raise _top_k_error(top_k, "the number of labels")
    return _post(_path("/predictions", model, version), _prediction, JSON, *encode(example), top_k=top_k)


def probabilities(model: str, version: str | None, labels: tuple[str, ...], batch: Array) -> Call[NDArray[np.float32]]:
    """Request the probabilities for a batch: float32 [N, len(labels)]."""
    read = functools.partial(_probabilities, shape=(len(batch), len(labels)))
    return _post(_path("/predictions", model, version), read, NPY, *encode(batch))


def explanation(example: Example, model: str, target: int | str | None) -> Call[Explanation]:
    """Request the attributions for one example; raises InputError as ``prediction`` does."""
    return _post(_path("/explanations", model), _explanation, JSON, *encode(example), target=target)


def heat_map(example: Example, model: str, target: int | str | None) -> Call[bytes]:
    """Request the explanation as a picture: the bytes of a PNG file."""
    return _post(_path("/explanations", model), _png, PNG, *encode(example), target=target)


def or_raise(outcome: T | FashionError) -> T:
    """Return the outcome, or raise it if it is an error."""
    if isinstance(outcome, FashionError):
        raise outcome
    return outcome


def labels(first: Prediction, top_k: int | None) -> tuple[str, ...]:
    """The model's labels in order, from the JSON prediction for a batch's first example.

    The pieces of a batch are answered as ``.npy``, which has no labels. The first example is therefore sent alone. A
    wrong key or model then fails before anything large is sent.

    Raises:
        AnswerError: the labels are not in the model's order.
        InputError: ``top_k`` is not from 1 to the number of labels.
    """
    names = tuple(first.probabilities)
    if first.class_index is not None and names.index(first.label) != first.class_index:
        raise AnswerError(f"the labels must have {first.label!r} at index {first.class_index}, got {names}")
    if top_k is not None and not 1 <= top_k <= len(names):
        raise _top_k_error(top_k, len(names))
    return names


def empty_predictions(top_k: int | None) -> Predictions:
    """The result for an empty batch, which needs no request and has no labels."""
    return Predictions((), np.zeros((0, 0), np.float32), top_k=top_k)


def _top_k_error(top_k: int, highest: object) -> InputError:
    return InputError(f"top_k must be from 1 to {highest}, got {top_k}")


def _get(path: str, read: Callable[[Answer], T]) -> Call[T]:
    return Call("GET", path, read, {"Accept": JSON})


def _post(
    path: str, read: Callable[[Answer], T], accept: str, body: bytes, content_type: str | None, **params: object
) -> Call[T]:
    headers = _present({"Accept": accept, "Content-Type": content_type})
    return Call("POST", path, read, headers, _present(params), body)


def _present(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _path(route: str, *names: str | None) -> str:
    present = [name for name in names if name is not None]
    for name in present:
        # Proxies resolve a path segment of dots alone.
        if not name.strip("."):
            raise InputError(f"the name of a model or version must not be empty or dots alone, got {name!r}")
    return "/".join((route, *(quote(name, safe="") for name in present)))


def _models(answer: Answer) -> tuple[str, ...]:
    names = _json(answer, dict).get("models")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad(answer, "has no list of models")
    return tuple(names)


def _model(answer: Answer) -> Model:
    metadata = _json(answer, dict)
    try:
        inputs = tuple(_tensor(each) for each in metadata["inputs"])
        outputs = tuple(_tensor(each) for each in metadata["outputs"])
        if not inputs or len(inputs[0].shape) < 2:
            raise ValueError("no input with a batch axis")
        return Model(str(metadata["name"]), tuple(map(str, metadata.get("versions", ()))), inputs, outputs)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is not a model's metadata ({error!r})") from error


def _prediction(answer: Answer) -> Prediction:
    prediction = _one(answer)
    if "values" in prediction:
        raise InputError(
            f"the model of {answer.url} returns numbers, and predictions are those of models that classify; "
            "send the request with an HTTP client"
        )
    try:
        probabilities = {str(label): float(probability) for label, probability in prediction["probabilities"].items()}
        index, label = _class(prediction)
        likeliest = max(probabilities, key=probabilities.__getitem__) if label is None else label
        ood, threshold = (
            None if prediction.get(name) is None else float(prediction[name]) for name in ("ood", "ood_threshold")
        )
        return Prediction(index, likeliest, probabilities[likeliest], probabilities, ood, threshold)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is not a prediction ({error!r})") from error


def _probabilities(answer: Answer, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        with NPY_LOCK:
            probabilities = np.load(io.BytesIO(_checked(answer).body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _bad(answer, "is not a .npy array") from error
    floats = isinstance(probabilities, np.ndarray) and probabilities.dtype.kind == "f"
    if not floats or probabilities.shape != shape:
        raise _bad(answer, f"is not an array of {shape[0]}x{shape[1]} probabilities")
    return np.asarray(probabilities, np.float32)


def _explanation(answer: Answer) -> Explanation:
    explanation = _one(answer)
    try:
        attributions = np.asarray(explanation["attributions"], np.float32)
        return Explanation(int(explanation["target"]), attributions, *_class(explanation))
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is not an explanation ({error!r})") from error


def _png(answer: Answer) -> bytes:
    if not _checked(answer).body.startswith(b"\x89PNG\r\n\x1a\n"):
        raise _bad(answer, "is not a PNG picture")
    return answer.body


def _ready(answer: Answer) -> bool:
    if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    _checked(answer)
    return True


def _checked(answer: Answer) -> Answer:
    if 200 <= answer.status < 300:
        return answer
    if answer.status < 400:
        location = answer.headers.get("Location", "another address")
        raise AnswerError(f"{answer.url} redirects to {location}; use that as the service's address")
    raise problem_error(_problem(answer), retrying.parse_retry_after(answer.headers.get("Retry-After")))


def _one(answer: Answer) -> Any:
    content = _json(answer, (dict, list))
    if not isinstance(content, list):
        return content
    if len(content) != 1:
        raise InputError(
            f"the file must hold one example, got {len(content)}; pass several to predict, as an array or a list"
        )
    return content[0]


def _class(result: Mapping[str, Any]) -> tuple[int | None, str | None]:
    # Models with independent labels have no class.
    return (int(result["class"]), str(result["label"])) if "class" in result else (None, None)


def _tensor(metadata: Mapping[str, Any]) -> Tensor:
    return Tensor(str(metadata["name"]), str(metadata["datatype"]), tuple(map(int, metadata["shape"])))


def _json(answer: Answer, kind: type | tuple[type, ...]) -> Any:
    try:
        content = json.loads(_checked(answer).body)
    except ValueError as error:
        raise _bad(answer, "is not JSON") from error
    if not isinstance(content, kind):
        raise _bad(answer, f"is JSON of the wrong type ({type(content).__name__})")
    return content


def _bad(answer: Answer, fault: str) -> AnswerError:
    return AnswerError(f"the answer from {answer.url} {fault}; is it fashion-serve, of the same version?")


def _problem(answer: Answer) -> Problem:
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    texts = {name: text for name, text in body.items() if isinstance(text, str)} if isinstance(body, dict) else {}
    return Problem(
        status=answer.status,
        title=texts.get("title", http.client.responses.get(answer.status, "Unknown status")),
        # TorchServe's own errors have a ``message``.
        detail=texts.get("detail", texts.get("message", "")),
        type=texts.get("type", "about:blank"),
        instance=texts.get("instance", ""),
    )
