"""Probabilities, or plain numbers, become the answer's bytes, in the form that ``Accept`` asks for.

    application/json (default)    {"class": 9, "label": "Ankle boot", "probability": 0.97, "probabilities": {…}}
                                  sigmoid models: {"probabilities": {…}, "labels": [those of at least 0.5]}
                                  models that return numbers: {"values": [0.25, -1.5]}, in the order of their labels
    application/x-npy             float32 [N, labels]
    application/octet-stream      the same, raw and little-endian

A JSON answer is one object if the request held one example without a batch axis. Otherwise it is a list in the order of
the examples, or ``{"predictions": [...]}`` for KServe v1.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handlers import problems
from handlers.inputs import npy
from handlers.signature import Output

JSON = "application/json"
OCTETS = "application/octet-stream"
PNG = "image/png"
FORMS = (JSON, npy.CONTENT_TYPE, OCTETS)

# Smallest probability at which a label of a sigmoid model applies: more likely than not.
THRESHOLD = 0.5


@functools.lru_cache(maxsize=256)
def negotiate(accept: str, forms: Sequence[str] = FORMS) -> str:
    """The member of ``forms`` that an ``Accept`` header prefers; earlier members win ties (RFC 9110, 12.5.1).

    Raises:
        problems.NotAcceptable: the header allows none of them.
    """
    ranges: dict[str, float] = {}
    for entry in accept.split(","):
        name, *parameters = (piece.strip() for piece in entry.lower().split(";"))
        if name:
            ranges[name] = _quality(parameters)
    if not ranges:
        return forms[0]

    def quality(form: str) -> float:
        # The most specific matching range decides.
        names = (form, form.partition("/")[0] + "/*", "*/*")
        return next((ranges[name] for name in names if name in ranges), 0.0)

    best = max(forms, key=quality)
    if quality(best) <= 0:
        raise problems.NotAcceptable(f"Accept must allow one of {', '.join(forms)}, got {accept[:200]!r}")
    return best


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def encoder(output: Output) -> Encoder:
    """The encoder of a model's answers."""
    return NumberEncoder(output) if output.activation == "none" else Encoder(output)


class Encoder:
    """Writes a model's answers; each label is converted to JSON once, when the model is loaded."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._labels = [orjson.dumps(label) for label in output.labels]
        escaped = [label.replace(b"%", b"%%") for label in self._labels]
        self._probabilities = b'"probabilities":{%s}' % b",".join(label + b":%b" for label in escaped)
        self._heads = [
            b'{"class":%d,"label":%b,"probability":' % (index, label) for index, label in enumerate(self._labels)
        ]
        self._whole = [head.replace(b"%", b"%%") + b"%b," + self._probabilities + b"}" for head in self._heads]

    def json(
        self,
        probabilities: NDArray[np.float32],
        single: bool,
        wrapped: bool = False,
        top_k: int | None = None,
        more: Sequence[bytes] = (),
    ) -> bytes:
        """Write the JSON answer to a prediction.

        Args:
            probabilities: float32 ``[N, labels]``.
            single: one object instead of a list of one.
            wrapped: a list in ``{"predictions": …}``.
            top_k: the number of labels in ``probabilities``, most probable first; ``None``: all labels in their order.
            more: further members of each example's object, such as of the function ``members``.
        """
        objects = self.objects(probabilities, top_k)
        if more:
            objects = [b"%b,%b}" % (answer[:-1], text) for answer, text in zip(objects, more, strict=True)]
        return _enclosed(objects, single, b"predictions" if wrapped else b"")

    def objects(self, probabilities: NDArray[np.float32], top_k: int | None = None) -> list[bytes]:
        """One JSON object for each row of ``probabilities``; arguments as in ``json``."""
        rows, bests = _texts(probabilities), probabilities.argmax(1).tolist()
        if top_k is None and self._output.activation == "softmax":
            return [self._whole[best] % (texts[best], *texts) for texts, best in zip(rows, bests, strict=True)]
        examples = zip(rows, probabilities, bests, strict=True)
        return [self._object(texts, values, best, top_k) for texts, values, best in examples]

    def explanations(
        self,
        probabilities: NDArray[np.float32],
        targets: Sequence[int],
        attributions: NDArray[np.float32],
        single: bool,
        wrapped: bool = False,
    ) -> bytes:
        """Write the JSON answer to an explanation: class, label, probability, ``target`` and ``attributions``.

        Sigmoid models predict no class; their first three members are those of the target.

        Args:
            probabilities: float32 ``[N, labels]``.
            targets: the index of the label that each example's attributions explain.
            attributions: float32 ``[N, *shape]``.
            single: one object instead of a list of one.
            wrapped: a list in ``{"explanations": …}``.
        """
        objects = []
        for texts, values, target, attribution in zip(
            _texts(probabilities), probabilities, targets, attributions, strict=True
        ):
            best = int(values.argmax()) if self._output.activation == "softmax" else target
            numbers = orjson.dumps(attribution, option=orjson.OPT_SERIALIZE_NUMPY)
            objects.append(b'%b%b,"target":%d,"attributions":%b}' % (self._heads[best], texts[best], target, numbers))
        return _enclosed(objects, single, b"explanations" if wrapped else b"")

    def _object(self, texts: list[bytes], values: NDArray[np.float32], best: int, top_k: int | None) -> bytes:
        if top_k is None:
            member = self._probabilities % tuple(texts)
        else:
            order = np.argsort(-values, kind="stable")[:top_k]
            member = b'"probabilities":{%b}' % b",".join(self._labels[index] + b":" + texts[index] for index in order)
        if self._output.activation == "softmax":
            return b"%b%b,%b}" % (self._heads[best], texts[best], member)
        labels = [self._labels[index] for index in np.flatnonzero(values >= THRESHOLD)]
        return b'{%b,"labels":[%b]}' % (member, b",".join(labels))


class NumberEncoder(Encoder):
    """Writes the answers of a model that returns plain numbers."""

    def objects(self, probabilities: NDArray[np.float32], top_k: int | None = None) -> list[bytes]:
        """One JSON object for each row of numbers, float32 ``[N, labels]``.

        Raises:
            problems.Unprocessable: ``top_k`` is set.
        """
        if top_k is not None:
            raise problems.Unprocessable("top_k is for models that classify; this model returns numbers")
        return [b'{"values":[%b]}' % row for row in _rows(probabilities)]


def members(**values: Any) -> bytes:
    """Members of a JSON object, without its braces; bytes as base64, numbers of numpy in their shortest form."""
    for name, value in values.items():
        if type(value) is bytes:
            values[name] = base64.b64encode(value).decode()
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _texts(probabilities: NDArray[np.float32]) -> list[list[bytes]]:
    """Each row's numbers in float32's shortest form: 0.1 and not float64's 0.10000000149011612."""
    return [row.split(b",") for row in _rows(probabilities)]


def _rows(numbers: NDArray[np.float32]) -> list[bytes]:
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")


def _enclosed(objects: list[bytes], single: bool, name: bytes) -> bytes:
    if name:
        return b'{"%b":[%b]}' % (name, b",".join(objects))
    return objects[0] if single else b"[%b]" % b",".join(objects)


def array(probabilities: NDArray[np.float32], form: str) -> bytes:
    """Write the answer as a ``.npy`` file or as raw little-endian float32."""
    values: NDArray[Any] = np.ascontiguousarray(probabilities, "<f4")
    return npy.write(values) if form == npy.CONTENT_TYPE else values.tobytes()
