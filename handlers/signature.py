"""The signature: the contract between training and serving.

Training writes it as ``signature.json`` beside the weights, archiving packs it, and a handler reads it at load time.
It holds everything that a handler must know about a network, so no handler names a model.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
from pathlib import Path
from typing import Any, Literal

FILE_NAME = "signature.json"
# The golden examples beside it in an artifact and an archive: training writes them, serving compares its answers with
# them.
GOLDEN_FILE_NAME = "golden.npz"
# The network for photographs beside it, if ``Output.photograph_temperature`` is set.
PHOTOGRAPHS_FILE_NAME = "photographs.pt"
# The pictures with which out-of-distribution scores are computed, if ``Signature.ood_threshold`` is set.
OOD_REFERENCES_FILE_NAME = "ood_references.npy"
# Increment it when older code would misread a file. Adding a member does not need that, because older code ignores it;
# nor does omitting a member with a default.
FORMAT = 1


class SignatureError(ValueError):
    """A signature is missing, unreadable or inconsistent; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class Input:
    """The form of one example in a request, and how it becomes the network's input.

    An example of ``shape`` is padded by ``padding`` zeros on each side of its last two axes, mapped by
    ``value * gain + bias`` and reshaped to ``network_shape``.

    Attributes:
        kind: ``image`` (uint8 pixels 0-255, black background) or ``vector`` (float32 features).
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
        """The length of one example in a raw body."""
        return math.prod(self.shape) * (4 if self.kind == "vector" else 1)


@dataclasses.dataclass(frozen=True)
class Output:
    """How the network's output becomes probabilities.

    Attributes:
        activation: ``softmax``: the network returns scores of exclusive classes, and the handler applies softmax and
            argmax. ``sigmoid``: the network ends in a sigmoid and returns the probabilities of independent labels.
        labels: the name of each value of the output, in order.
        temperature: scores are divided by this before softmax (Guo et al. 2017, temperature scaling); > 0.
        photograph_temperature: the same for the scores of the network for photographs; ``None`` without that network.
    """

    activation: Literal["softmax", "sigmoid"]
    labels: tuple[str, ...]
    temperature: float = 1.0
    photograph_temperature: float | None = None


@dataclasses.dataclass(frozen=True)
class Signature:
    """One model version's contract.

    Attributes:
        model: the catalog's name.
        version: the version, digits and dots (``1.0``).
        description: one sentence for people.
        input: the network's input.
        output: the network's output.
        trained_on: dataset name and the SHA-256 of its parts.
        scored: the main figures of ``metrics.json``, such as ``test_accuracy``.
        ood_threshold: the out-of-distribution score (``handlers.outputs.ood``) that 5 % of the test set exceed;
            ``None`` for models that compute none.
    """

    model: str
    version: str
    description: str
    input: Input
    output: Output
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    scored: dict[str, float] = dataclasses.field(default_factory=dict)
    ood_threshold: float | None = None

    def to_json(self) -> str:
        """The signature as indented JSON, the form of ``signature.json``."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


def _check(signature: Signature, source: str) -> None:
    input_, output = signature.input, signature.output
    if input_.padding and (input_.kind != "image" or len(input_.shape) != 2):
        raise SignatureError(f"{source}: input.padding needs an image of two axes, got shape {input_.shape}")
    axes = 2 if input_.kind == "image" else 1
    values = math.prod(length + 2 * input_.padding for length in input_.shape)
    requirements = {
        "input.kind": ("image or vector", input_.kind in ("image", "vector")),
        "input.shape": (
            f"{axes} positive lengths",
            len(input_.shape) == axes and all(length > 0 for length in input_.shape),
        ),
        "input.network_shape": (f"{values} values in all", math.prod(input_.network_shape) == values),
        "output.activation": ("softmax or sigmoid", output.activation in ("softmax", "sigmoid")),
        "output.labels": ("one or more distinct names", 0 < len(set(output.labels)) == len(output.labels)),
        "output.temperature": ("above 0", output.temperature > 0),
        "output.photograph_temperature": (
            "above 0 or absent",
            output.photograph_temperature is None or output.photograph_temperature > 0,
        ),
        "ood_threshold": ("from 0 to 1, for images only", _is_ood_threshold(signature)),
    }
    for field, (requirement, holds) in requirements.items():
        if not holds:
            value = operator.attrgetter(field)(signature)
            raise SignatureError(f"{source}: {field} must be {requirement}, got {value!r}")


def _is_ood_threshold(signature: Signature) -> bool:
    threshold = signature.ood_threshold
    return threshold is None or (signature.input.kind == "image" and 0 <= threshold <= 1)


def _parse(raw: dict[str, Any]) -> Signature:
    input_, output = _known_fields(Input, raw["input"]), _known_fields(Output, raw["output"])
    shapes = {name: tuple(input_[name]) for name in ("shape", "network_shape")}
    parts = {
        "input": Input(**{**input_, **shapes}),
        "output": Output(**{**output, "labels": tuple(output["labels"])}),
    }
    return Signature(**{**_known_fields(Signature, raw), **parts})


def _known_fields(kind: type[Input | Output | Signature], raw: dict[str, Any]) -> dict[str, Any]:
    return {field.name: raw[field.name] for field in dataclasses.fields(kind) if field.name in raw}


def read(path: Path) -> Signature:
    """Read and check ``signature.json``; a file without a format number is of format 1.

    Raises:
        SignatureError: the file is missing, not JSON, of another format, incomplete or inconsistent.
    """
    try:
        raw = json.loads(path.read_text())
        number = raw.get("format", 1)
        signature = _parse(raw) if number == FORMAT else None
    except OSError as error:
        raise SignatureError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SignatureError(f"{path} cannot be read as a signature: {error!r}") from error
    if signature is None:
        raise SignatureError(f"{path}: format must be {FORMAT}, got {number!r}; use the release that wrote the file")
    _check(signature, str(path))
    return signature
