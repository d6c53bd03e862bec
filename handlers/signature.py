"""The signature: the one contract between training and serving.

Training writes it as ``signature.json`` beside the weights, archiving packs it, and a handler reads it when it
loads. Everything that a handler must know about a network stands here, so that no handler names a model.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any, Literal

FILE_NAME = "signature.json"
# Raise it when older code would misread a file: a new member is ignored there, a member with a default may be missing.
FORMAT = 1


class SignatureError(ValueError):
    """A signature that is missing, unreadable or contradicts itself; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class Input:
    """What one example looks like to a caller, and how it becomes the network's input.

    An example of ``shape`` is padded by ``padding`` zeros on each side of its last two axes, mapped by
    ``value * gain + bias`` and reshaped to ``network_shape``.

    Attributes:
        kind: ``image`` (uint8 pixels 0-255, black ground) or ``vector`` (float32 features).
        name: the tensor's name in the Open Inference Protocol.
        shape: one example as callers send it, without the batch axis: ``(28, 28)`` or ``(features,)``.
        network_shape: one example as the network takes it, without the batch axis.
        padding: pixels added on each side of an image; 0 for vectors.
        gain: factor applied to each value.
        bias: offset added after the factor.
    """

    kind: Literal["image", "vector"]
    name: str
    shape: tuple[int, ...]
    network_shape: tuple[int, ...]
    padding: int = 0
    gain: float = 1.0
    bias: float = 0.0

    @functools.cached_property
    def example_bytes(self) -> int:
        """The bytes of one example as a raw body has it."""
        return math.prod(self.shape) * (4 if self.kind == "vector" else 1)


@dataclasses.dataclass(frozen=True)
class Output:
    """How what the network returns becomes probabilities.

    Attributes:
        activation: ``softmax``: the network returns scores of one class of several, the handler applies softmax and
            argmax; ``sigmoid``: the network ends in a sigmoid and returns the probabilities of independent labels.
        labels: the name of each value that the network returns, in order.
        temperature: scores are divided by this before softmax (Guo et al. 2017, temperature scaling); > 0.
    """

    activation: Literal["softmax", "sigmoid"]
    labels: tuple[str, ...]
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Signature:
    """One model version's contract.

    Attributes:
        model: the catalog's name.
        version: the version, digits and dots (``1.0``).
        description: one sentence for people.
        input: what goes in.
        output: what comes out.
        trained_on: dataset name and the SHA-256 of its parts.
        scored: the headline figures of ``metrics.json`` (``test_accuracy`` and so on).
    """

    model: str
    version: str
    description: str
    input: Input
    output: Output
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    scored: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The signature as indented JSON, the form of ``signature.json``."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


def _check(signature: Signature, source: str) -> None:
    given, taken, out = signature.input, signature.input.network_shape, signature.output

    if given.padding and (given.kind != "image" or len(given.shape) != 2):
        raise SignatureError(f"{source}: input.padding needs an image of two axes, got shape {given.shape}")
    padded = [length + 2 * given.padding for length in given.shape]
    problems = {
        "input.kind": given.kind in ("image", "vector"),
        "input.shape": len(given.shape) == (2 if given.kind == "image" else 1) and all(n > 0 for n in given.shape),
        "input.network_shape": math.prod(padded) == math.prod(taken),
        "output.activation": out.activation in ("softmax", "sigmoid"),
        "output.labels": len(out.labels) > 0 and len(set(out.labels)) == len(out.labels),
        "output.temperature": out.temperature > 0,
    }
    for field, holds in problems.items():
        if not holds:
            raise SignatureError(f"{source}: {field} is not valid")


def _parsed(raw: dict[str, Any]) -> Signature:
    given, out = _known(Input, raw["input"]), _known(Output, raw["output"])
    shapes = {name: tuple(given[name]) for name in ("shape", "network_shape")}
    parts = {"input": Input(**{**given, **shapes}), "output": Output(**{**out, "labels": tuple(out["labels"])})}
    return Signature(**{**_known(Signature, raw), **parts})


def _known(kind: type[Input | Output | Signature], raw: dict[str, Any]) -> dict[str, Any]:
    return {field.name: raw[field.name] for field in dataclasses.fields(kind) if field.name in raw}


def read(path: Path) -> Signature:
    """Read and check ``signature.json``; a file without a format number is of format 1.

    Raises:
        SignatureError: the file is missing, is not JSON, has another format, lacks a field or contradicts itself.
    """
    try:
        raw = json.loads(path.read_text())
        number = raw.get("format", 1)
        signature = _parsed(raw) if number == FORMAT else None
    except OSError as error:
        raise SignatureError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SignatureError(f"{path}: not a signature ({error})") from error
    if signature is None:
        raise SignatureError(f"{path} has format {number!r}, this code reads {FORMAT}; use the release that wrote it")
    _check(signature, str(path))
    return signature
