"""Build one model version: train, score, export, draw and describe, then put the whole artifact in place."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from handlers.signature import Output, Signature
from models import artifacts, cards, golden, ood_references, plotting
from models.catalog import Entry, Training
from models.datasets import DATASETS, Dataset
from models.errors import ArtifactError
from models.evaluation import evaluate, worst_mistakes
from models.exporting import export
from models.photograph_training import train_for_photographs
from models.training import forward, prepare, probabilities, train

# Test examples on which TorchScript is compared with the network.
EXPORT_CHECK_COUNT = 1000
# Four rows of six pictures.
MISTAKES_COUNT = 24


def quick(settings: Training) -> Training:
    """Settings that train for seconds: for tests, not for serving."""
    return dataclasses.replace(settings, epochs=1)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the figures depend on."""
    libraries = ("torch", "numpy", "scikit-learn", "matplotlib")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in libraries}}


def build(entry: Entry, version: str, settings: Training, seed: int, console: Console) -> dict[str, Any]:
    """Train one model version and write its artifact, whole or not at all.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        models.errors.DataError: the data is missing or damaged.
        models.errors.ExportError: TorchScript and network disagree.
        models.errors.ArtifactError: ``version`` is not digits separated by dots.
    """
    target = artifacts.folder(entry.name, version)
    dataset = DATASETS[entry.dataset]()
    trained = train(entry, dataset, settings, seed, console)
    photographs = None
    if entry.photographs:
        shorter = dataclasses.replace(entry.photographs, epochs=min(settings.epochs, entry.photographs.epochs))
        photographs = train_for_photographs(entry, trained.network, dataset, shorter, seed, console)

    answers = answer(entry, trained.network, dataset, trained.temperature)
    metrics = {
        **evaluate(answers, dataset.test_targets, entry.activation, entry.labels),
        "parameters": sum(parameter.numel() for parameter in trained.network.parameters()),
        "train_seconds": round(trained.seconds + (photographs.seconds if photographs else 0), 2),
        "images_per_second": round(float(np.median([epoch.images_per_second for epoch in trained.history])), 1),
        "device": trained.device,
        "seed": seed,
        "best_epoch": trained.best_epoch + 1,
        "training": dataclasses.asdict(settings),
        "dataset_digests": dataset.digests,
        "library_versions": library_versions(),
    }
    references = ood_references.choose(dataset.train_inputs, seed) if entry.input.kind == "image" else None
    signature = Signature(
        model=entry.name,
        version=version,
        description=entry.description,
        input=entry.input,
        output=Output(
            entry.activation, entry.labels, trained.temperature, photographs.temperature if photographs else None
        ),
        trained_on={"dataset": dataset.name, "digests": dataset.digests},
        scored={name: metrics[name] for name in ("test_accuracy", "expected_calibration_error")},
        ood_threshold=None if references is None else ood_references.threshold(references, dataset.test_inputs),
    )
    with artifacts.writing(target) as folder:
        torch.save(trained.network.state_dict(), folder / artifacts.WEIGHTS)
        examples = prepare(dataset.test_inputs[:EXPORT_CHECK_COUNT], entry.input)
        export(trained.network, examples, entry.activation, folder / artifacts.TORCHSCRIPT)
        if photographs:
            export(photographs.network, examples, entry.activation, folder / artifacts.PHOTOGRAPHS)
        if references is not None:
            np.save(folder / artifacts.OOD_REFERENCES, references)
        plotting.curves(trained.history, trained.best_epoch, entry.name, folder / artifacts.CURVES)
        card = cards.card(signature, metrics, str(trained.network))
        describe(folder, dataset.test_inputs, dataset.test_targets, answers, metrics, signature, card)
    return metrics


def answer(entry: Entry, network: nn.Module, dataset: Dataset, temperature: float) -> Tensor:
    """Probabilities of the test set, float32 [N, labels]."""
    scores = forward(network, prepare(dataset.test_inputs, entry.input))
    return probabilities(scores, entry.activation, temperature)


def describe(
    folder: Path,
    inputs: Tensor,
    targets: Tensor,
    answers: Tensor,
    metrics: dict[str, Any],
    signature: Signature,
    card: str,
) -> None:
    """Write the files that describe an artifact: signature, metrics, golden examples, card, and pictures of decisions.

    Args:
        folder: the artifact's folder.
        inputs, targets: the test set, as in ``models.datasets.Dataset``.
        answers: probabilities or numbers of the test set, float32 [N, labels].
        metrics: the contents of ``metrics.json``.
        signature: the model's inputs and outputs.
        card: the contents of ``MODEL_CARD.md``.
    """
    (folder / artifacts.SIGNATURE).write_text(signature.to_json())
    (folder / artifacts.METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
    golden.write(folder / artifacts.GOLDEN, inputs, answers)
    (folder / artifacts.CARD).write_text(card)
    if "confusion_matrix" in metrics:
        plotting.confusion_matrix(metrics["confusion_matrix"], signature.output.labels, folder / "confusion_matrix.png")
        _draw_mistakes(folder / "errors.png", signature.output, inputs, targets, answers)


def _names(labels: tuple[str, ...], decisions: Tensor) -> list[str]:
    """Label names of class indices [N], or of the independent labels [N, labels] that apply."""
    if decisions.dim() == 1:
        return [labels[index] for index in decisions.tolist()]
    rows = (decisions >= 0.5).tolist()
    return [" + ".join(name for name, applies in zip(labels, row, strict=True) if applies) or "none" for row in rows]


def _draw_mistakes(path: Path, output: Output, inputs: Tensor, targets: Tensor, answers: Tensor) -> None:
    chosen, confidence = worst_mistakes(answers, targets, output.activation, MISTAKES_COUNT)
    decisions = answers[chosen].argmax(1) if output.activation == "softmax" else answers[chosen]
    plotting.errors(
        inputs[chosen],
        _names(output.labels, targets[chosen]),
        _names(output.labels, decisions),
        confidence.tolist(),
        path,
    )


def load_network(entry: Entry, version: str) -> nn.Module:
    """The trained network of one version, on the CPU in evaluation mode.

    Raises:
        models.errors.ArtifactError: it is not trained, is int8 and so has no weights, or its weights are damaged or
            belong to another network.
    """
    path = artifacts.folder(entry.name, version) / artifacts.WEIGHTS
    if source := artifacts.metrics(entry.name, version).get("quantized_from"):
        raise ArtifactError(
            f"{entry.name} {version} is the int8 form of {source} and has no weights of its own; use {source}"
        )
    network = entry.network()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} does not hold {entry.name}'s weights ({error}); train it again") from error
    return network.eval()


def evaluate_again(entry: Entry, version: str) -> dict[str, Any]:
    """The quality figures of a trained version on the test set.

    Raises:
        models.errors.ArtifactError: as ``load_network``.
    """
    dataset = DATASETS[entry.dataset]()
    network, signature = load_network(entry, version), artifacts.signature(entry.name, version)
    answers = answer(entry, network, dataset, signature.output.temperature)
    return evaluate(answers, dataset.test_targets, entry.activation, entry.labels)


def export_again(entry: Entry, version: str) -> tuple[Path, int]:
    """Write a trained version's TorchScript file; return its path and the number of examples checked.

    Raises:
        models.errors.ArtifactError: as ``load_network``.
        models.errors.ExportError: TorchScript and network disagree.
    """
    examples = prepare(DATASETS[entry.dataset]().test_inputs[:EXPORT_CHECK_COUNT], entry.input)
    path = artifacts.folder(entry.name, version) / artifacts.TORCHSCRIPT
    export(load_network(entry, version), examples, entry.activation, path)
    return path, len(examples)
