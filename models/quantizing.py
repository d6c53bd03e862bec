"""Quantize a trained version: the same network with int8 weights and activations, as a new version.

    float32 weights ─► observe activations on training examples ─► round ─► TorchScript ─► score ─► artifact

Each layer's activations get one fixed scale, computed from training examples (static quantization; Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"). With a scale per batch
(dynamic quantization), an example's answer would depend on the other examples in its batch.
"""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from models import artifacts, cards
from models.building import answer, describe, library_versions, load_network
from models.catalog import Entry
from models.datasets import DATASETS
from models.errors import ArtifactError
from models.evaluation import evaluate
from models.training import forward, prepare

# FBGEMM: the fastest engine on x86 processors, with the same integers on all of them.
ENGINE = "x86"
# Training examples that set the scales. More examples no longer change the scales of these networks.
OBSERVED_COUNT = 2000
# Largest accepted drop of the test accuracy (0-1).
MAX_ACCURACY_DROP = 0.001


def convert(network: nn.Module, examples: Tensor) -> torch.jit.ScriptModule:
    """The int8 form of a network.

    Args:
        network: float32, in evaluation mode, on the CPU.
        examples: prepared inputs, float32 [N, *network_shape], from which the activations' scales are computed.

    Returns:
        TorchScript with the network's float32 inputs and outputs; without gradients.
    """
    torch.backends.quantized.engine = ENGINE
    with warnings.catch_warnings():
        # torch warns that torch.ao.quantization is in maintenance. Its successor cannot produce TorchScript.
        warnings.simplefilter("ignore")
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        mapping = get_default_qconfig_mapping(ENGINE)
        observed = prepare_fx(network, mapping, (examples[:1],))
        forward(observed, examples)
        return torch.jit.script(convert_fx(observed))


def quantize(entry: Entry, source: str, version: str) -> dict[str, Any]:
    """Write the int8 form of a trained version as another version's artifact, whole or not at all.

    Args:
        entry: the model.
        source: the trained version.
        version: the version number of the int8 form.

    Returns:
        The contents of ``metrics.json``: the figures of a trained version, ``quantized_from``, and
        ``largest_difference``, the largest change of a probability on the test set.

    Raises:
        models.errors.ArtifactError: the source is not trained or is int8 itself, both versions are the same, the
            processor is not x86, or accuracy drops by more than ``MAX_ACCURACY_DROP``.
        models.errors.DataError: the data is missing or damaged.
    """
    if version == source:
        raise ArtifactError(
            f"the int8 form of {entry.name} {source} must have another version, got {version}; set --version"
        )
    if ENGINE not in torch.backends.quantized.supported_engines:
        raise ArtifactError(f"this torch has no int8 engine '{ENGINE}'; quantizing needs an x86 processor")
    target = artifacts.folder(entry.name, version)
    network, before = load_network(entry, source), artifacts.metrics(entry.name, source)
    source_signature = artifacts.signature(entry.name, source)
    temperature = source_signature.output.temperature
    dataset = DATASETS[entry.dataset]()
    converted = convert(network, prepare(dataset.train_inputs[:OBSERVED_COUNT], entry.input))

    answers = answer(entry, converted, dataset, temperature)
    float_answers = answer(entry, network, dataset, temperature)
    metrics = {
        **before,
        **evaluate(answers, dataset.test_targets, entry.activation, entry.labels),
        "quantized_from": source,
        "largest_difference": (answers - float_answers).abs().max().item(),
        "library_versions": library_versions(),
    }
    drop = before["test_accuracy"] - metrics["test_accuracy"]
    if drop > MAX_ACCURACY_DROP:
        raise ArtifactError(
            f"{entry.name} {source} as int8 scores {metrics['test_accuracy']:.4f}, {drop:.4f} less than before, more "
            f"than the accepted {MAX_ACCURACY_DROP}; nothing was written"
        )
    scored = {name: metrics[name] for name in source_signature.scored}
    signature = dataclasses.replace(source_signature, version=version, scored=scored)
    with artifacts.writing(target) as folder:
        torch.jit.save(converted, folder / artifacts.TORCHSCRIPT)
        card = cards.card(signature, metrics, str(network))
        describe(folder, dataset.test_inputs, dataset.test_targets, answers, metrics, signature, card)
        # The network for photographs stays float32: it computes nothing for most requests.
        for name in (artifacts.CURVES, *artifacts.optional_files(signature)):
            shutil.copy(artifacts.folder(entry.name, source) / name, folder / name)
    return metrics
