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
from typing import Any, Literal, get_args

FILE_NAME = "signature.json"
# The golden examples beside it in an artifact and an archive: training writes them, serving compares its answers with
# them.
GOLDEN_FILE_NAME = "golden.npz"
# The network for photographs beside it, if ``Output.photograph_temperature`` is set.
PHOTOGRAPHS_FILE_NAME = "photographs.pt"
# The pictures with which out-of-distribution scores are computed, if ``Signature.ood_threshold`` is set.
OOD_REFERENCES_FILE_NAME = "ood_references.npy"
# The class beside it that ``Signature.steps`` names.
STEPS_FILE_NAME = "steps.py"
# Increment it when older code would misread a file. Adding a member does not need that, because older code ignores it;
# nor does omitting a member with a default.
FORMAT = 1

Kind = Literal["image", "vector", "tensor"]
Resize = Literal["convert", "stretch", "fit", "crop"]
Activation = Literal["softmax", "sigmoid", "none"]


class SignatureError(ValueError):
    """A signature is missing, unreadable or inconsistent; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class Input:
    """The form of one example in a request, and how it becomes the network's input.

    An example of ``shape`` is padded by ``padding`` zeros on each side of its last two axes, mapped by
    ``value * gain + bias`` and reshaped to ``network_shape``. With ``Signature.steps`` the first step does all of that.

    Attributes:
        kind: ``image`` (uint8 pixels 0-255), ``vector`` (float32 features) or ``tensor`` (a float32 array).
        name: the tensor's name in the Open Inference Protocol.
        shape: one example as callers send it, without the batch axis: ``(28, 28)`` for gray images, ``(3, 64, 64)`` for
            red, green and blue ones, ``(features,)``, or two or more lengths of a tensor.
        network_shape: one example as the network takes it, without the batch axis.
        padding: pixels added on each side of an image; 0 for vectors.
        gain: factor applied to each value; or a factor for each feature, or each channel, which is the first axis.
        bias: offset added after the factor; or several, as ``gain``.
        resize: how an image file becomes a picture of ``shape``. ``convert``: as Fashion-MNIST's authors did, on black
            (``handlers.inputs.photographs``); otherwise a rule of ``handlers.inputs.resizing``.
    """

    kind: Kind
    name: str
    shape: tuple[int, ...]
    network_shape: tuple[int, ...]
    padding: int = 0
    gain: float | tuple[float, ...] = 1.0
    bias: float | tuple[float, ...] = 0.0
    resize: Resize = "convert"

    @functools.cached_property
    def example_bytes(self) -> int:
        """The length of one example in a raw body."""
        return math.prod(self.shape) * (1 if self.kind == "image" else 4)

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """The shape of one example with its padding."""
        return (*self.shape[:-2], *(length + 2 * self.padding for length in self.shape[-2:]))


@dataclasses.dataclass(frozen=True)
class Output:
    """How the network's output becomes the answer.

    Attributes:
        activation: ``softmax``: the network returns scores of exclusive classes, and the handler applies softmax and
            argmax. ``sigmoid``: the network ends in a sigmoid and returns the probabilities of independent labels.
            ``none``: the network returns numbers, such as a regression or an embedding, and they are the answer.
        labels: the name of each value of the output, in order.
        temperature: scores are divided by this before softmax (Guo et al. 2017, temperature scaling); > 0.
        photograph_temperature: the same for the scores of the network for photographs, fitted so that the largest
            probability is the chance that the answer is right; ``None`` without that network.
    """

    activation: Activation
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
        scored: the main figures of ``metrics.json``, such as ``test_accuracy``, which models that return numbers lack.
        ood_threshold: the out-of-distribution score (``handlers.outputs.ood``) that 5 % of the test set exceed;
            ``None`` for models that compute none.
        steps: the class in ``STEPS_FILE_NAME`` with the model's own steps (``handlers.steps``); ``None`` without steps.
    """

    model: str
    version: str
    description: str
    input: Input
    output: Output
    trained_on: dict[str, Any] = dataclasses.field(default_factory=dict)
    scored: dict[str, float] = dataclasses.field(default_factory=dict)
    ood_threshold: float | None = None
    steps: str | None = None

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """The shape of one example before padding and scaling."""
        return self.input.network_shape if self.steps else self.input.shape

    def to_json(self) -> str:
        """The signature as indented JSON, the form of ``signature.json``."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


def _check(signature: Signature, source: str) -> None:
    input_, output = signature.input, signature.output
    if input_.padding and input_.kind != "image":
        raise SignatureError(f"{source}: input.padding needs an image, got shape {input_.shape}")
    values = math.prod(input_.padded_shape)
    requirements = {
        "input.kind": (" or ".join(get_args(Kind)), input_.kind in get_args(Kind)),
        "input.shape": (_SHAPES.get(input_.kind, ""), _is_shape(input_.kind, input_.shape)),
        "input.network_shape": (
            f"{values} values in all",
            signature.steps is not None or math.prod(input_.network_shape) == values,
        ),
        **{
            f"input.{name}": (
                "a number, or one for each channel or feature",
                _is_scaling(getattr(input_, name), input_),
            )
            for name in ("gain", "bias")
        },
        "input.resize": (" or ".join(get_args(Resize)), input_.resize in get_args(Resize)),
        "output.activation": (" or ".join(get_args(Activation)), output.activation in get_args(Activation)),
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


# The shapes of one example by the kind of input, in words.
_SHAPES = {
    "image": "height and width, or 3, height and width",
    "vector": "one positive length",
    "tensor": "two or more positive lengths",
}


def _is_shape(kind: str, shape: tuple[int, ...]) -> bool:
    if not all(length > 0 for length in shape):
        return False
    if kind == "image":
        return len(shape) == 2 or (len(shape) == 3 and shape[0] == 3)
    return len(shape) == 1 if kind == "vector" else len(shape) > 1


def _is_scaling(value: float | tuple[float, ...], spec: Input) -> bool:
    has_several = spec.kind != "image" or len(spec.shape) > 2
    return not isinstance(value, tuple) or (has_several and len(value) == spec.shape[0])


def _is_ood_threshold(signature: Signature) -> bool:
    threshold = signature.ood_threshold
    return threshold is None or (signature.input.kind == "image" and 0 <= threshold <= 1)


def _parse(raw: dict[str, Any]) -> Signature:
    input_, output = _known_fields(Input, raw["input"]), _known_fields(Output, raw["output"])
    shapes = {name: tuple(input_[name]) for name in ("shape", "network_shape")}
    # JSON has no tuples.
    lists = {name: tuple(value) for name, value in input_.items() if isinstance(value, list)}
    parts = {
        "input": Input(**{**input_, **lists, **shapes}),
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
