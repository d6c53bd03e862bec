"""A trained version as int8: the same network with weights and activations in eight bits, as a version of its own.

    float32 weights ─► observe activations on training examples ─► round ─► TorchScript ─► score ─► artifact

Each layer's activations get one scale, found on training examples (static quantisation; Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"), so that an example's
answer does not depend on what else is in its batch, as it would with scales found anew for every batch.
"""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from models import artifacts
from models.building import answer, describe, library_versions, load_network
from models.catalog import Entry
from models.datasets import DATASETS
from models.errors import ArtifactError
from models.evaluation import evaluate
from models.training import forward, prepare

# FBGEMM on x86 processors: the fastest engine there, with the same integers on all of them.
ENGINE = "x86"
# More change the scales of these networks no longer.
OBSERVED = 2000
# Test accuracy that may be lost.
MARGIN = 0.001


def convert(network: nn.Module, examples: Tensor) -> torch.jit.ScriptModule:
    """The int8 form of a network.

    Args:
        network: float32, in evaluation mode, on the CPU.
        examples: prepared inputs, float32 [N, *network_shape], by which the activations' scales are found.

    Returns:
        TorchScript that takes and gives float32 as the network does; without gradients.
    """
    torch.backends.quantized.engine = ENGINE
    with warnings.catch_warnings():
        # In maintenance, like TorchScript; its successor makes no TorchScript.
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
        version: what the int8 form is called.

    Returns:
        The contents of ``metrics.json``: among the figures of a trained version ``quantized_from``, and
        ``largest_difference``, the most that a probability of a test example moved by.

    Raises:
        models.errors.ArtifactError: the source is not trained or is int8 itself, both versions are the same, this
            processor cannot, or accuracy falls by more than 0.001.
        models.errors.DataError: the data is missing or damaged.
    """
    if version == source:
        raise ArtifactError(f"{entry.name} {source} stays as it is; give the int8 form a version of its own")
    if ENGINE not in torch.backends.quantized.supported_engines:
        raise ArtifactError(f"torch has no int8 engine named {ENGINE} here; it needs an x86 processor")
    target = artifacts.folder(entry.name, version)
    network, before = load_network(entry, source), artifacts.metrics(entry.name, source)
    given = artifacts.signature(entry.name, source)
    dataset = DATASETS[entry.dataset]()
    converted = convert(network, prepare(dataset.train_inputs[:OBSERVED], entry.input))

    answers = answer(entry, converted, dataset, given.output.temperature)
    floats = answer(entry, network, dataset, given.output.temperature)
    metrics = {
        **before,
        **evaluate(answers, dataset.test_targets, entry.activation, entry.labels),
        "quantized_from": source,
        "largest_difference": (answers - floats).abs().max().item(),
        "library_versions": library_versions(),
    }
    lost = before["test_accuracy"] - metrics["test_accuracy"]
    if lost > MARGIN:
        raise ArtifactError(
            f"{entry.name} {source} as int8 scores {metrics['test_accuracy']:.4f}, {lost:.4f} less than before, which "
            f"is more than {MARGIN}; nothing was written"
        )
    signature = dataclasses.replace(given, version=version, scored={name: metrics[name] for name in given.scored})
    with artifacts.writing(target) as folder:
        torch.jit.save(converted, folder / artifacts.TORCHSCRIPT)
        describe(folder, dataset, answers, metrics, signature, str(network))
        shutil.copy(artifacts.folder(entry.name, source) / artifacts.CURVES, folder / artifacts.CURVES)
    return metrics
