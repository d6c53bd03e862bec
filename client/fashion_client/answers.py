"""What the service answers, read and checked: both clients read with these functions.

Every function raises :class:`ProblemError` for an answer that is a problem, and :class:`AnswerError` for one that is
not what was asked for.
"""

from __future__ import annotations

import dataclasses
import http
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_client import retrying
from fashion_client.errors import AnswerError, InputError, Problem, problem_error
from fashion_client.results import Explanation, Model, Prediction, Tensor


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP response.

    Attributes:
        url: the address that answered, for messages.
        status: the status code.
        headers: looked up without regard to case.
        body: the whole content.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def check(answer: Answer) -> Answer:
    """The answer itself, if it is a success."""
    if 200 <= answer.status < 300:
        return answer
    if answer.status < 400:
        elsewhere = answer.headers.get("Location", "another address")
        raise AnswerError(f"{answer.url} redirects to {elsewhere}; use that as the service's address")
    raise problem_error(_problem(answer), retrying.parse_retry_after(answer.headers.get("Retry-After")))


def models(answer: Answer) -> tuple[str, ...]:
    """The names of all models."""
    names = _json(answer, dict).get("models")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad(answer, "holds no list of models")
    return tuple(names)


def model(answer: Answer) -> Model:
    """A model's metadata."""
    found = _json(answer, dict)
    try:
        inputs = tuple(_tensor(each) for each in found["inputs"])
        outputs = tuple(_tensor(each) for each in found["outputs"])
        if not inputs or len(inputs[0].shape) < 2:
            raise ValueError("no input with a batch axis")
        return Model(str(found["name"]), tuple(map(str, found.get("versions", ()))), inputs, outputs)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is no model metadata ({error!r})") from error


def prediction(answer: Answer) -> Prediction:
    """The prediction for one example.

    Raises:
        InputError: the body that was sent held several examples.
    """
    found = _one(answer)
    try:
        named = {str(label): float(probability) for label, probability in found["probabilities"].items()}
        index, label = _class(found)
        likeliest = max(named, key=named.__getitem__) if label is None else label
        return Prediction(index, likeliest, named[likeliest], named)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is no prediction ({error!r})") from error


def probabilities(answer: Answer, rows: int, labels: tuple[str, ...]) -> NDArray[np.float32]:
    """The probabilities for a batch: float32 [rows, len(labels)]."""
    try:
        found = np.load(io.BytesIO(check(answer).body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _bad(answer, "is no .npy array") from error
    if not isinstance(found, np.ndarray) or found.shape != (rows, len(labels)) or found.dtype.kind != "f":
        raise _bad(answer, f"is no array of {rows}x{len(labels)} probabilities")
    return found.astype(np.float32, copy=False)


def explanation(answer: Answer) -> Explanation:
    """The attributions for one example.

    Raises:
        InputError: the body that was sent held several examples.
    """
    found = _one(answer)
    try:
        attributions = np.asarray(found["attributions"], np.float32)
        return Explanation(int(found["target"]), attributions, *_class(found))
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(answer, f"is no explanation ({error!r})") from error


def png(answer: Answer) -> bytes:
    """A picture's bytes."""
    if not check(answer).body.startswith(b"\x89PNG\r\n\x1a\n"):
        raise _bad(answer, "is no PNG picture")
    return answer.body


def ready(answer: Answer) -> bool:
    """Whether predictions are answered now."""
    if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    check(answer)
    return True


def _one(answer: Answer) -> Any:
    found = _json(answer, (dict, list))
    if not isinstance(found, list):
        return found
    if len(found) != 1:
        raise InputError(f"the body holds {len(found)} examples; pass several to predict, as an array or a list")
    return found[0]


def _class(found: Mapping[str, Any]) -> tuple[int | None, str | None]:
    # Models with independent labels name no class.
    return (int(found["class"]), str(found["label"])) if "class" in found else (None, None)


def _tensor(described: Mapping[str, Any]) -> Tensor:
    return Tensor(
        str(described["name"]), str(described["datatype"]), tuple(int(length) for length in described["shape"])
    )


def _json(answer: Answer, kind: type | tuple[type, ...]) -> Any:
    try:
        found = json.loads(check(answer).body)
    except ValueError as error:
        raise _bad(answer, "is not JSON") from error
    if not isinstance(found, kind):
        raise _bad(answer, f"is a JSON {type(found).__name__}")
    return found


def _bad(answer: Answer, complaint: str) -> AnswerError:
    return AnswerError(f"the answer from {answer.url} {complaint}; is it fashion-serve, of the same version?")


def _problem(answer: Answer) -> Problem:
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    body: dict[str, Any] = found if isinstance(found, dict) else {}

    def text(member: str, otherwise: str) -> str:
        value = body.get(member)
        return value if isinstance(value, str) else otherwise

    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown status"
    return Problem(
        status=answer.status,
        title=text("title", phrase),
        # TorchServe's own errors say ``message``.
        detail=text("detail", text("message", "")),
        type=text("type", "about:blank"),
        instance=text("instance", ""),
    )
