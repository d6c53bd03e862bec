"""Bring a trained network: it becomes an artifact like those of training, and needs no entry in the catalog.

    network's file ─► TorchScript ─► checks ─┐
    labels, examples, steps ─────────────────┴─► temperature ─► figures ─► artifact

Half of the examples fit the temperature of a softmax, and the others are scored with it. Without a softmax, all are
scored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handlers.signature import Activation, Input, Output, Resize, Signature
from models import artifacts, cards, foreign_networks, foreign_steps, labeled_examples
from models.building import describe, library_versions
from models.calibration import fit_temperature
from models.catalog import CATALOG
from models.errors import DataError, NetworkError
from models.evaluation import evaluate, evaluate_embedding, evaluate_numbers
from models.labeled_examples import Examples
from models.lookup import IMPORTED
from models.training import correct, probabilities

# Fewer examples fit no temperature and score nothing.
_LEAST_EXAMPLES = 20
# Scores whose rows add up to 1 within this are probabilities.
_SUM_TOLERANCE = 1e-3
# Of classes, numbers and embeddings. A version has those of its kind.
_FIGURES = (
    "test_accuracy",
    "expected_calibration_error",
    "mean_absolute_error",
    "r2",
    "nearest_neighbor_accuracy",
)
# What is asked of steps whose answers lack the usual form.
_USUAL_SCORES = {
    "softmax": "after() returns probabilities, but --scores softmax needs scores; return their logarithm",
    "sigmoid": "after() must return probabilities, from 0 to 1, for --scores sigmoid; apply the sigmoid there",
}
# In paths of the API, file names and TorchServe's names of models.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class Source:
    """A network that was trained elsewhere.

    Attributes:
        network: a TorchScript file, or a state dict.
        class_name: ``module:Class`` of a state dict's network.
        labels: a text file with the name of each score, one a line, in order; ``None`` for numbers named 0, 1, ….
        examples: labeled examples (``models/labeled_examples.py``).
        scores: ``softmax``: one class of several; ``sigmoid``: independent labels; ``none``: numbers.
        shape: of one example; ``None``: that of the examples.
        mean, std: subtracted from each value (pixels are 0-1), and the divisor of the rest, as in the training: one
            number, or one for each feature, or each channel, which is the first axis.
        resize: the rule by which the training resized pictures (``handlers/inputs/resizing.py``).
        steps: a Python file, and the class in it with steps of the model's own (``handlers/steps.py``).
    """

    network: Path
    labels: Path | None
    examples: Path
    scores: Activation = "softmax"
    class_name: str | None = None
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: Resize = "stretch"
    steps: tuple[Path, str] | None = None


def import_network(name: str, version: str, source: Source) -> dict[str, Any]:
    """Write an artifact for a trained network, whole or not at all.

    Args:
        name: of the model, which the catalog must not list.
        version: digits separated by dots.
        source: the network and what belongs to it.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        models.errors.DataError: labels or examples are missing, damaged, or do not match.
        models.errors.NetworkError: network or steps do not fit them, or a worker could not serve it.
        models.errors.ArtifactError: ``version`` is not digits separated by dots.
    """
    target = artifacts.folder(name, version)
    if not _NAME.fullmatch(name):
        raise NetworkError(f"a model's name must be letters, digits, _ and -, beginning with a letter, got '{name}'")
    if name in CATALOG:
        raise NetworkError(f"models/catalog.py lists {name}, which is trained here; choose another name")
    network = foreign_networks.load(source.network, source.class_name)
    if source.labels is None and source.scores != "none":
        raise DataError("--labels is missing; write the label of each score, one a line, and pass the file")
    labels = _labels(source.labels) if source.labels else ()
    examples = labeled_examples.read(source.examples, labels, source.scores, source.shape, source.resize)
    if len(examples.inputs) < _LEAST_EXAMPLES:
        raise DataError(f"{source.examples} must hold {_LEAST_EXAMPLES} examples or more, got {len(examples.inputs)}")

    steps = foreign_steps.load(*source.steps) if source.steps else None
    prepared = steps.before(examples.inputs) if steps else examples.inputs
    spec = _input(network, examples, prepared, source)
    outputs = foreign_networks.scores(network, prepared, spec)
    # Numbers have any scale, and those beside a large one its rounding.
    scale = float(outputs.abs().max()) if steps or source.scores == "none" else 1.0
    foreign_networks.check(network, prepared, spec, outputs, foreign_networks.TOLERANCE * scale)
    answers = steps.after(outputs) if steps else outputs
    returning = "after()" if steps else "the network"
    if answers.dim() != 2:
        raise NetworkError(
            f"{returning} must return a row of values for each example, got the shape {list(answers.shape)} for "
            f"{len(answers)} examples"
        )
    count = answers.shape[1]
    if source.labels is None:
        labels = tuple(map(str, range(count)))
    if count != len(labels):
        raise NetworkError(f"{returning} returns {count} values for each example, but there are {len(labels)} labels")
    if not steps:
        network, answers = _with_usual_scores(network, answers, source.scores)
    elif _lacks_usual_scores(answers, source.scores):
        raise NetworkError(_USUAL_SCORES[source.scores])

    temperature, scored = 1.0, torch.arange(len(answers))
    if source.scores == "softmax":
        temperature, scored = _fit(answers, examples.targets)
    output = Output(source.scores, labels, temperature)
    inputs, targets = examples.inputs[scored], examples.targets[scored]
    answers = probabilities(answers[scored], source.scores, temperature)
    metrics = {
        **_quality(answers, targets, output, source.examples),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        IMPORTED: source.network.name,
        "examples": len(examples.inputs),
        "scored_examples": len(scored),
        "dataset_digests": {
            **{file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in _files(source)},
            examples.name: examples.digest,
        },
        "library_versions": library_versions(),
    }
    signature = Signature(
        model=name,
        version=version,
        description=f"Network imported from {' with steps of '.join(file.name for file in _files(source))}.",
        input=spec,
        output=output,
        trained_on={"dataset": examples.name, "digests": metrics["dataset_digests"]},
        scored=main_figures(metrics),
        steps=source.steps[1] if source.steps else None,
    )
    with artifacts.writing(target) as folder:
        torch.jit.save(network, folder / artifacts.TORCHSCRIPT)
        if source.steps:
            shutil.copyfile(source.steps[0], folder / artifacts.STEPS)
        card = cards.imported_card(signature, metrics, str(network))
        describe(folder, inputs, targets, answers, metrics, signature, card)
    return metrics


def _files(source: Source) -> list[Path]:
    """The files that become part of the archive."""
    return [source.network, *([source.steps[0]] if source.steps else [])]


def main_figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of ``metrics.json`` that say at a glance how good a version is."""
    return {name: metrics[name] for name in _FIGURES if name in metrics}


def _quality(answers: Tensor, targets: Tensor, output: Output, source: Path) -> dict[str, Any]:
    """The quality figures of answers, float32 [N, labels]."""
    if output.activation != "none":
        return evaluate(answers, targets, output.activation, output.labels)
    if targets.dim() == 1 and answers.shape[1] > 1:
        return evaluate_embedding(answers, targets)
    targets = targets.float().reshape(len(targets), -1)
    if targets.shape != answers.shape:
        raise DataError(
            f"{source}: targets holds {targets.shape[1]} numbers for each example, but the network returns "
            f"{answers.shape[1]}"
        )
    return evaluate_numbers(answers, targets, output.labels)


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; write the label of each score, one a line, and pass it with --labels"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a text file ({error}); write one label a line") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels or len(set(labels)) < len(labels):
        raise DataError(f"{path} must hold one or more different labels, one a line, got {len(labels)}")
    return labels


def _input(network: nn.Module, examples: Examples, prepared: Tensor, source: Source) -> Input:
    """The signature's input; ``prepared`` are the examples [N, …] after the first step."""
    is_image = examples.kind == "image"
    shape = tuple(examples.inputs.shape[1:])
    count = 1 if is_image and len(shape) == 2 else shape[0]
    for name, values in (("mean", source.mean), ("std", source.std)):
        if len(values) not in (1, count):
            raise NetworkError(f"--{name} must be 1 or {count} numbers for examples of {shape}, got {len(values)}")
    if not all(value > 0 for value in source.std):
        raise NetworkError(f"--std must be above 0, got {min(source.std):g}")
    if source.steps and (source.mean, source.std) != ((0.0,), (1.0,)):
        raise NetworkError("--mean and --std cannot be used with --steps; let before() do the scaling")
    # The first step takes pixels as they are.
    scale = 255 if is_image and not source.steps else 1
    length = max(len(source.mean), len(source.std))
    pairs = zip(_repeated(source.mean, length), _repeated(source.std, length), strict=True)
    gains, biases = zip(*((1 / (scale * std), -mean / std) for mean, std in pairs), strict=True)
    return Input(
        examples.kind,
        "image" if is_image else "features",
        shape,
        foreign_networks.network_shape(network, prepared, "tensor" if source.steps else examples.kind),
        gain=gains[0] if length == 1 else gains,
        bias=biases[0] if length == 1 else biases,
        resize=source.resize if is_image else "convert",
    )


def _repeated(values: tuple[float, ...], length: int) -> tuple[float, ...]:
    return values * length if len(values) == 1 else values


class _LogOf(nn.Module):
    """The logarithm of a network's probabilities: scores of which softmax makes the same probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores float32 [N, labels]."""
        scores: Tensor = self.network(inputs).clamp(min=1e-30).log()
        return scores


class _SigmoidOf(nn.Module):
    """A network with the sigmoid that it lacks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Probabilities float32 [N, labels]."""
        scores: Tensor = self.network(inputs).sigmoid()
        return scores


def _with_usual_scores(
    network: torch.jit.ScriptModule, answers: Tensor, activation: Activation
) -> tuple[torch.jit.ScriptModule, Tensor]:
    """The network and its answers, float32 [N, labels], in the form that the signature's activation requires.

    Networks end with their softmax or sigmoid or without it, and the answers show which. Numbers stay as they are.
    """
    if not _lacks_usual_scores(answers, activation):
        return network, answers
    if activation == "softmax":
        return torch.jit.script(_LogOf(network).eval()), answers.clamp(min=1e-30).log()
    return torch.jit.script(_SigmoidOf(network).eval()), answers.sigmoid()


def _lacks_usual_scores(answers: Tensor, activation: Activation) -> bool:
    """Whether answers for softmax are probabilities already, or those for sigmoid are none yet."""
    are_probabilities = bool(((answers >= 0) & (answers <= 1)).all())
    if activation == "softmax":
        return are_probabilities and bool(((answers.sum(1) - 1).abs() < _SUM_TOLERANCE).all())
    return activation == "sigmoid" and not are_probabilities


def _fit(scores: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """The temperature that fits half of the examples, and the indices of the others, int64 [K]."""
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    fitted, scored = order[: len(order) // 2], order[len(order) // 2 :].sort().values
    # Of right answers only, any lower temperature is more likely, so that they fit none.
    if correct(scores[fitted], targets[fitted], "softmax").all():
        return 1.0, scored
    return fit_temperature(scores[fitted], targets[fitted]), scored
