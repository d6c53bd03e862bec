"""Requests whose right answers are known: an archive's golden examples in every form that the service takes.

An answer is right if it has the right status, names a version that may answer, and holds the probabilities that this
version's archive records for these examples, within ``TOLERANCE``.
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

# Sums are rounded differently in a batch of another size.
TOLERANCE = 1e-4

NPY = "application/x-npy"
JSON = "application/json"
OCTETS = "application/octet-stream"

# Examples in a request of the form "bulk".
_BULK = 32
# Answers to one question that are remembered as right, so that the next one of the same bytes is not parsed.
_REMEMBERED = 64


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to ask.

    Attributes:
        path: with the model's name for ``%s``.
        headers: sent along.
        body: examples ``[N, *shape]`` to the body.
        probabilities: the answer's body and labels to probabilities ``[N, labels]``; raises what parsing raises.
        examples: how many go into one request.
        images_only: not for models that take vectors.
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


def _objects(found: Any, labels: Sequence[str]) -> NDArray[np.float32]:
    rows = []
    for one in found:
        by_label = one["probabilities"]
        row = [by_label[label] for label in labels]
        if len(by_label) != len(labels) or ("class" in one and row[one["class"]] != max(row)):
            raise ValueError("labels or class do not fit the probabilities")
        rows.append(row)
    return np.array(rows, np.float32)


def _read_object(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects([orjson.loads(body)], labels)


def _read_list(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects(orjson.loads(body), labels)


def _read_predictions(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    return _objects(orjson.loads(body)["predictions"], labels)


def _read_npy(body: bytes, labels: Sequence[str]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(io.BytesIO(body), allow_pickle=False)
    return found.reshape(-1, len(labels))


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
    "bulk": Form(_PREDICT, {"Content-Type": NPY}, _npy, _read_list, examples=_BULK),
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
        sent: the request as it goes over the wire.
        versions: the versions that may answer, each with its probabilities ``[N, labels]``.
        labels: the model's labels.
        read: the answer's body to probabilities.
    """

    def __init__(
        self,
        sent: bytes,
        versions: Mapping[str, NDArray[np.float32]],
        labels: Sequence[str],
        read: Callable[[bytes, Sequence[str]], NDArray[np.float32]],
    ) -> None:
        self.sent = sent
        self._versions = {version.lower().encode(): wanted for version, wanted in versions.items()}
        self._labels = labels
        self._read = read
        self._right: set[tuple[bytes, bytes]] = set()

    def is_right(self, reply: http1.Reply) -> bool:
        """Whether an answer of status 200 is the right one of the version that it names."""
        version = reply.header(b"x-model-version")
        if (version, reply.body) in self._right:
            return True
        wanted = self._versions.get(version)
        if wanted is None:
            return False
        try:
            found = self._read(reply.body, self._labels)
        except (ValueError, KeyError, TypeError, IndexError):
            return False
        if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=0, atol=TOLERANCE):
            return False
        if len(self._right) < _REMEMBERED:
            self._right.add((version, reply.body))
        return True


class LearnedQuestion:
    """A request whose answer while nothing is amiss is taken as the right one.

    Args:
        sent: the request as it goes over the wire.
        reply: the answer to it.
    """

    def __init__(self, sent: bytes, reply: http1.Reply) -> None:
        self.sent = sent
        self._version = reply.header(b"x-model-version")
        self._wanted = orjson.loads(reply.body)
        self._right = reply.body

    def is_right(self, reply: http1.Reply) -> bool:
        """Whether an answer of status 200 is the one that was learned, but for rounding."""
        if reply.header(b"x-model-version") != self._version:
            return False
        if reply.body == self._right:
            return True
        try:
            found = orjson.loads(reply.body)
            return set(found) == set(self._wanted) and all(
                abs(found["probabilities"][label] - probability) <= TOLERANCE
                for label, probability in self._wanted["probabilities"].items()
            )
        except (ValueError, KeyError, TypeError):
            return False


def make(archives: Sequence[Archive], forms: Sequence[str], count: int = 64) -> list[Question]:
    """Questions about every model of some archives, in every form that goes with it, in turn.

    Args:
        archives: of each model one archive for each version that may answer.
        forms: keys of ``FORMS``.
        count: how many for each model and form, each about other examples as far as there are so many.

    Raises:
        ValueError: an archive has no golden examples, or two versions of a model have different ones.
    """
    by_model: dict[str, list[Archive]] = {}
    for archive in archives:
        by_model.setdefault(archive.model, []).append(archive)
    made: list[list[Question]] = []
    for model, versions in by_model.items():
        golden = [archive.golden for archive in versions if archive.golden is not None]
        if len(golden) < len(versions) or any(not np.array_equal(golden[0].inputs, each.inputs) for each in golden):
            raise ValueError(f"the archives of {model} do not have the same golden examples")
        labels = versions[0].signature.output.labels
        is_image = versions[0].signature.input.kind == "image"
        for form in (FORMS[name] for name in forms if is_image or not FORMS[name].images_only):
            questions = []
            by_version = {archive.version: each.probabilities for archive, each in zip(versions, golden, strict=True)}
            for place in range(count):
                rows = np.arange(place, place + form.examples) % len(golden[0].inputs)
                body = form.body(golden[0].inputs[rows])
                questions.append(
                    Question(
                        http1.request("POST", form.path % model, form.headers, body),
                        {version: known[rows] for version, known in by_version.items()},
                        labels,
                        form.probabilities,
                    )
                )
            made.append(questions)
    return [question for turn in zip(*made, strict=True) for question in turn]
