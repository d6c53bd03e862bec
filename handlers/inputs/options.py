"""Options of a request, from its query string.

TorchServe gives its handlers no query string, so the gateway copies it into the request header ``X-Query``. A program
that calls the inference port directly sends that header itself.

    top_k    1 to the number of labels    only the most probable labels in "probabilities"
    target   a label, or its index        the class to explain; by default the most probable one
    prepare  auto, none or photo          how images are converted, see handlers.inputs.images
    picture  true or false                adds "picture", the pixels given to the network, as a base64 PNG; for a
                                          photograph also "outline", where the item was found
    ood      true or false                adds "ood", the out-of-distribution score, and its threshold; by default to
                                          answers to images that were converted
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, get_args
from urllib.parse import parse_qsl

from handlers import problems
from handlers.inputs import images

_SWITCH = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Options:
    """One request's options, checked; the defaults are those of a request without a query string."""

    top_k: int | None = None
    target: int | None = None
    prepare: images.Prepare = "auto"
    picture: bool = False
    ood: bool | None = None


DEFAULT = Options()


def parse(query: str | None, labels: Sequence[str]) -> Options:
    """Read a query string; unknown names are ignored, as in TorchServe's own paths.

    Raises:
        problems.Unprocessable: an option has an invalid value or appears twice.
    """
    if not query:
        return DEFAULT
    values: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise problems.Unprocessable(f"the query string cannot be read: {error}") from None
    for name, value in pairs:
        if name in values and name in _READERS:
            raise problems.Unprocessable(f"option {name} appears twice; send it once")
        values[name] = value
    return Options(**{name: read(values[name], labels) for name, read in _READERS.items() if name in values})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _top_k(text: str, labels: Sequence[str]) -> int:
    number = _number(text)
    if number is None or not 1 <= number <= len(labels):
        raise problems.Unprocessable(f"top_k must be a whole number from 1 to {len(labels)}, got {text[:40]!r}")
    return number


def _target(text: str, labels: Sequence[str]) -> int:
    if text in labels:
        return labels.index(text)
    number = _number(text)
    if number is None or number >= len(labels):
        raise problems.Unprocessable(
            f"target must be a label or its index from 0 to {len(labels) - 1}, got {text[:40]!r}; "
            f"the labels are {', '.join(labels)[:400]}"
        )
    return number


def _prepare(text: str, _: Sequence[str]) -> str:
    if text not in get_args(images.Prepare):
        raise problems.Unprocessable(f"prepare must be auto, none or photo, got {text[:40]!r}")
    return text


def _switch(name: str) -> Callable[[str, Sequence[str]], bool]:
    def read(text: str, _: Sequence[str]) -> bool:
        if text.lower() not in _SWITCH:
            raise problems.Unprocessable(f"{name} must be true or false, got {text[:40]!r}")
        return _SWITCH[text.lower()]

    return read


_READERS: dict[str, Callable[[str, Sequence[str]], Any]] = {
    "top_k": _top_k,
    "target": _target,
    "prepare": _prepare,
    "picture": _switch("picture"),
    "ood": _switch("ood"),
}
