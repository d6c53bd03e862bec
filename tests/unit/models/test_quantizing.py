"""Quantizing writes a whole int8 artifact or none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from handlers import signature
from models import archiving, artifacts, quantizing
from models.building import load_network
from models.catalog import CATALOG
from models.datasets import blobs
from models.errors import ArtifactError
from models.quantizing import quantize
from models.training import forward, prepare, probabilities

ENTRY = CATALOG["blobs_mlp"]

pytestmark = pytest.mark.skipif(
    quantizing.ENGINE not in torch.backends.quantized.supported_engines, reason="needs an x86 processor"
)


@pytest.fixture
def quantized(blobs_artifact):
    """Metrics and folder of version 1.1, the int8 form of ``blobs_artifact``."""
    return quantize(ENTRY, "1.0", "1.1"), blobs_artifact.parent / "1.1"


def test_the_artifact_is_whole_except_for_weights(quantized, blobs_artifact):
    metrics, folder = quantized
    names = {path.name for path in blobs_artifact.iterdir()} - {artifacts.WEIGHTS}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / artifacts.METRICS).read_text()) == metrics
    before = artifacts.metrics("blobs_mlp", "1.0")
    assert before["test_accuracy"] - metrics["test_accuracy"] <= quantizing.MAX_ACCURACY_DROP
    assert 0 < metrics["largest_difference"] < 0.5
    described = signature.read(folder / signature.FILE_NAME)
    assert (described.version, described.scored["test_accuracy"]) == ("1.1", metrics["test_accuracy"])
    card = (folder / artifacts.CARD).read_text()
    assert "int8, of version 1.0" in card
    assert "python -m models quantize blobs_mlp --version 1.1 --from 1.0" in card


def test_torchscript_gives_the_golden_answers_at_every_batch_size(quantized):
    _, folder = quantized
    described = signature.read(folder / signature.FILE_NAME)
    with np.load(folder / artifacts.GOLDEN) as golden:
        inputs, expected = torch.from_numpy(golden["inputs"]), golden["probabilities"]
    network = torch.jit.load(str(folder / artifacts.TORCHSCRIPT)).eval()
    inputs = prepare(inputs, described.input)
    for size in (1, 7, len(inputs)):
        answers = [
            probabilities(forward(network, inputs[at : at + size]), "softmax", described.output.temperature)
            for at in range(0, len(inputs), size)
        ]
        assert np.array_equal(torch.cat(answers).numpy(), expected)


def test_the_network_is_int8_and_mostly_agrees_with_its_source(quantized):
    _, folder = quantized
    network = torch.jit.load(str(folder / artifacts.TORCHSCRIPT)).eval()
    kinds = {node.kind() for node in network.inlined_graph.nodes()}
    assert {"quantized::linear_relu", "quantized::linear"} <= kinds
    inputs = prepare(blobs().test_inputs, ENTRY.input)
    agree = forward(network, inputs).argmax(1) == forward(load_network(ENTRY, "1.0"), inputs).argmax(1)
    assert agree.float().mean() > 0.98


@pytest.mark.usefixtures("quantized")
def test_an_int8_version_is_packed_like_any_other(tmp_path):
    path, _ = archiving.archive(ENTRY, "1.1", tmp_path / "store")
    assert path.name == "blobs_mlp-1.1.mar"


@pytest.mark.parametrize(
    ("source", "version", "reason"),
    [
        ("1.0", "1.0", "the int8 form of blobs_mlp 1.0 must have another version, got 1.0"),
        ("1.1", "1.2", "1.1 is the int8 form of 1.0 and has no weights of its own; use 1.0"),
        ("3.0", "3.1", "3.0 is not trained"),
        ("1.0", "next", "version must be digits"),
    ],
)
@pytest.mark.usefixtures("quantized")
def test_unsuitable_versions_are_refused(source, version, reason):
    with pytest.raises(ArtifactError, match=reason):
        quantize(ENTRY, source, version)


def test_nothing_is_written_if_accuracy_drops(blobs_artifact, monkeypatch):
    monkeypatch.setattr(quantizing, "MAX_ACCURACY_DROP", -1.0)
    with pytest.raises(ArtifactError, match=r"as int8 scores 0\.9.* nothing was written"):
        quantize(ENTRY, "1.0", "1.1")
    assert [path.name for path in blobs_artifact.parent.iterdir()] == ["1.0"]


def test_other_processors_are_refused(blobs_artifact, monkeypatch):
    monkeypatch.setattr(quantizing, "ENGINE", "of another processor")
    with pytest.raises(ArtifactError, match="needs an x86 processor"):
        quantize(ENTRY, "1.0", "1.1")
    assert not (blobs_artifact.parent / "1.1").exists()
