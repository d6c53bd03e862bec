"""Requests with known answers: an archive's golden examples in every form that the service accepts.

An answer is right if it names a version that may answer, and its probabilities differ from that version's golden
answers by at most ``TOLERANCE``.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from bench import http1
from serving.store.archives import Archive

# Largest difference of a probability: the served network adds in another order than the one that was trained.
TOLERANCE = 1e-4

NPY = "application/x-npy"
JSON = "application/json"
OCTETS = "application/octet-stream"

# Examples in a request of the form "bulk".
_BULK_EXAMPLES = 32
# Right answers that are cached per question, so that equal bytes are not parsed again.
_CACHED_ANSWERS = 64


@dataclasses.dataclass(frozen=True)
class Form:
    """One form of a request.

    Attributes:
        path: the path, with ``%s`` for the model's name.
        headers: the request's headers.
        body: makes the body of examples ``[N, *shape]``.
        probabilities: reads probabilities ``[N, labels]`` from an answer's body, given the labels; raises the errors of
            parsing.
        examples: the number of examples in one request.
        images_only: whether the form is not for vector models.
    """

    path: str
    headers: Mapping[str, str]
    body: Callable[[NDArray[Any]], bytes]
    probabilities: Callable[[bytes, Sequence[str]], NDArray[np.float32]]
    examples: int = 1
    images_only: bool = False


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _picture(values: NDArray[Any], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values[0]).save(buffer, kind)
    return buffer.getvalue()


def _multipart(values: NDArray[Any]) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="i"; filename="i.png"\r\nContent-Type: image/png\r\n\r\n'
    return head + _picture(values, "PNG") + b"\r\n--b--\r\n"


def _base64(values: NDArray[Any]) -> bytes:
    return orjson.dumps({"instances": [{"b64": base64.b64encode(_picture(values, "PNG")).decode()}]})


def _oip(values: NDArray[Any]) -> bytes:
    datatype = "UINT8" if values.dtype == np.uint8 else "FP32"
    tensor = {"name": "image" if datatype == "UINT8" else "features", "datatype": datatype}
    return orjson.dumps({"inputs": [{**tensor, "shape": values.shape, "data": values.ravel().tolist()}]})


def _objects(predictions: Any, labels: Sequence[str]) -> NDArray[np.float32]:
    rows = []
    for prediction in predictions:
        by_label = prediction["probabilities"]
        row = [by_label[label] for label in labels]
        if len(by_label) != len(labels) or ("class" in prediction and row[prediction["class"]] != max(row)):
            raise ValueError("labels or class do not match the probabilities")
        rows.append(row)
    return np.array(rows, np.float32)


def _read_object(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects([orjson.loads(body)], labels)


def _read_list(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects(orjson.loads(body), labels)


def _read_predictions(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects(orjson.loads(body)["predictions"], labels)


def _read_npy(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.load(io.BytesIO(body), allow_pickle=False)
    return values.reshape(-1, len(labels))


def _read_octets(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return np.frombuffer(body, "<f4").reshape(-1, len(labels))


def _read_oip(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    (tensor,) = [each for each in orjson.loads(body)["outputs"] if each["name"] == "probabilities"]
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"][0], len(labels))


_PREDICT, _V1, _V2 = "/predictions/%s", "/v1/models/%s:predict", "/v2/models/%s/infer"

FORMS: dict[str, Form] = {
    "raw": Form(_PREDICT, {"Content-Type": OCTETS}, lambda v: v[0].tobytes(), _read_object),
    "octets": Form(_PREDICT, {"Content-Type": OCTETS, "Accept": OCTETS}, lambda v: v[0].tobytes(), _read_octets),
    "npy": Form(_PREDICT, {"Content-Type": NPY, "Accept": NPY}, lambda v: _npy(v[0]), _read_npy),
    "json": Form(_PREDICT, {"Content-Type": JSON}, lambda v: orjson.dumps(v[0].tolist()), _read_object),
    "v1": Form(_V1, {"Content-Type": JSON}, lambda v: orjson.dumps({"instances": v[:1].tolist()}), _read_predictions),
    "v2": Form(_V2, {"Content-Type": JSON}, lambda v: _oip(v[:1]), _read_oip),
    "bulk": Form(_PREDICT, {"Content-Type": NPY}, _npy, _read_list, examples=_BULK_EXAMPLES),
    "base64": Form(_PREDICT, {"Content-Type": JSON}, _base64, _read_predictions, images_only=True),
    "form": Form(
        _PREDICT, {"Content-Type": "multipart/form-data; boundary=b"}, _multipart, _read_object, images_only=True
    ),
    **{
        kind.lower(): Form(
            _PREDICT,
            {"Content-Type": f"image/{kind.lower()}"},
            lambda v, kind=kind: _picture(v, kind),  # type: ignore[misc]
            _read_object,
            images_only=True,
        )
        for kind in ("PNG", "BMP", "GIF")
    },
}


class Question:
    """One request and, by version, its right answer.

    Args:
        request: the request's bytes.
        versions: the versions that may answer, each with its probabilities ``[N, labels]``.
        labels: the model's labels.
        read: reads probabilities from an answer's body.
    """

    def __init__(
        self,
        request: bytes,
        versions: Mapping[str, NDArray[np.float32]],
        labels: Sequence[str],
        read: Callable[[bytes, Sequence[str]], NDArray[np.float32]],
    ) -> None:
        self.request = request
        self._versions = {version.lower().encode(): expected for version, expected in versions.items()}
        self._labels = labels
        self._read = read
        self._right: set[tuple[bytes, bytes]] = set()

    def is_right(self, reply: http1.Reply) -> bool:
        """Whether an answer of status 200 is right for the version that it names."""
        version = reply.header(b"x-model-version")
        if (version, reply.body) in self._right:
            return True
        expected = self._versions.get(version)
        if expected is None:
            return False
        try:
            values = self._read(reply.body, self._labels)
        except (ValueError, KeyError, TypeError, IndexError):
            return False
        if values.shape != expected.shape or not np.allclose(values, expected, rtol=0, atol=TOLERANCE):
            return False
        if len(self._right) < _CACHED_ANSWERS:
            self._right.add((version, reply.body))
        return True


class LearnedQuestion:
    """A request whose first answer is taken as the right one.

    Args:
        request: the request's bytes.
        reply: its first answer.
    """

    def __init__(self, request: bytes, reply: http1.Reply) -> None:
        self.request = request
        self._version = reply.header(b"x-model-version")
        self._expected = orjson.loads(reply.body)
        self._right = reply.body

    def is_right(self, reply: http1.Reply) -> bool:
        """Whether an answer of status 200 equals the first one, except for rounding by another server."""
        if reply.header(b"x-model-version") != self._version:
            return False
        if reply.body == self._right:
            return True
        try:
            answer = orjson.loads(reply.body)
            return set(answer) == set(self._expected) and all(
                abs(answer["probabilities"][label] - probability) <= TOLERANCE
                for label, probability in self._expected["probabilities"].items()
            )
        except (ValueError, KeyError, TypeError):
            return False


def make(
    archives: Sequence[Archive], forms: Sequence[str], count: int = 64, headers: Mapping[str, str] | None = None
) -> list[Question]:
    """Questions about every model of some archives, in every form that suits the model, in turn.

    Args:
        archives: for each model, one archive of each version that may answer.
        forms: keys of ``FORMS``.
        count: the number of questions for each model and form; examples repeat once all have been used.
        headers: further headers of each request.

    Raises:
        ValueError: an archive has no golden examples, or two versions of a model have different ones.
    """
    by_model: dict[str, list[Archive]] = {}
    for archive in archives:
        by_model.setdefault(archive.model, []).append(archive)
    groups: list[list[Question]] = []
    for model, versions in by_model.items():
        golden = [archive.golden for archive in versions if archive.golden is not None]
        if len(golden) < len(versions) or any(not np.array_equal(golden[0].inputs, each.inputs) for each in golden):
            raise ValueError(f"all archives of {model} must have the same golden examples")
        labels = versions[0].signature.output.labels
        is_image = versions[0].signature.input.kind == "image"
        for form in (FORMS[name] for name in forms if is_image or not FORMS[name].images_only):
            questions = []
            by_version = {archive.version: each.probabilities for archive, each in zip(versions, golden, strict=True)}
            for start in range(count):
                rows = np.arange(start, start + form.examples) % len(golden[0].inputs)
                body = form.body(golden[0].inputs[rows])
                questions.append(
                    Question(
                        http1.request("POST", form.path % model, {**form.headers, **(headers or {})}, body),
                        {version: probabilities[rows] for version, probabilities in by_version.items()},
                        labels,
                        form.probabilities,
                    )
                )
            groups.append(questions)
    return [question for turn in zip(*groups, strict=True) for question in turn]
