"""The requests that the service understands, as data: both clients send the same ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import quote

from fashion_client.errors import InputError
from fashion_client.inputs import NPY

JSON = "application/json"
PNG = "image/png"


@dataclasses.dataclass(frozen=True)
class Call:
    """One HTTP request.

    Attributes:
        method: ``GET`` or ``POST``.
        path: quoted, from ``/``.
        params: the query string's parameters.
        headers: those that this request needs besides the client's own.
        body: its content, None for a request without.
    """

    method: str
    path: str
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None


def models() -> Call:
    """Ask for the names of all models."""
    return Call("GET", "/v1/models", headers={"Accept": JSON})


def model(name: str) -> Call:
    """Ask for a model's metadata, as the Open Inference Protocol defines it."""
    return Call("GET", f"/v2/models/{_segment(name)}", headers={"Accept": JSON})


def ready() -> Call:
    """Ask whether predictions are answered now."""
    return Call("GET", "/readyz", headers={"Accept": JSON})


def prediction(body: bytes, content_type: str | None, model: str, version: str | None, top_k: int | None) -> Call:
    """Ask for a prediction in JSON."""
    check_top_k(top_k)
    params = {} if top_k is None else {"top_k": str(top_k)}
    return _post(_predictions(model, version), params, body, content_type, accept=JSON)


def probabilities(body: bytes, model: str, version: str | None) -> Call:
    """Ask for the probabilities of a ``.npy`` batch as ``.npy``."""
    return _post(_predictions(model, version), {}, body, NPY, accept=NPY)


def explanation(body: bytes, content_type: str | None, model: str, target: int | str | None, accept: str) -> Call:
    """Ask for an explanation, as ``JSON`` numbers or as a ``PNG`` heat map."""
    params = {} if target is None else {"target": str(target)}
    return _post(f"/explanations/{_segment(model)}", params, body, content_type, accept)


def check_top_k(top_k: int | None, labels: int | None = None) -> None:
    """Raise InputError unless ``top_k`` is None or from 1 to the number of ``labels``, where that is known."""
    if top_k is not None and (top_k < 1 or (labels is not None and top_k > labels)):
        highest = "the number of labels" if labels is None else labels
        raise InputError(f"top_k has to be from 1 to {highest}, got {top_k}")


def _predictions(model: str, version: str | None) -> str:
    path = f"/predictions/{_segment(model)}"
    return path if version is None else f"{path}/{_segment(version)}"


def _post(path: str, params: Mapping[str, str], body: bytes, content_type: str | None, accept: str) -> Call:
    headers = {"Accept": accept} if content_type is None else {"Accept": accept, "Content-Type": content_type}
    return Call("POST", path, params, headers, body)


def _segment(name: str) -> str:
    # Dots alone would be taken for a step in the path.
    if not name.strip("."):
        raise InputError(f"{name!r} is no name of a model or version")
    return quote(name, safe="")
