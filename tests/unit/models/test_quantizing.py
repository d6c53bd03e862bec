"""A trained version as int8: a whole artifact of its own, or none."""

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
def made(blobs_artifact):
    """The int8 form of ``blobs_artifact``, as 1.1: its metrics and its folder."""
    return quantize(ENTRY, "1.0", "1.1"), blobs_artifact.parent / "1.1"


def test_artifact_is_whole_but_for_weights(made, blobs_artifact):
    metrics, folder = made
    names = {path.name for path in blobs_artifact.iterdir()} - {artifacts.WEIGHTS}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / artifacts.METRICS).read_text()) == metrics
    before = artifacts.metrics("blobs_mlp", "1.0")
    assert before["test_accuracy"] - metrics["test_accuracy"] <= quantizing.MARGIN
    assert 0 < metrics["largest_difference"] < 0.5
    described = signature.read(folder / signature.FILE_NAME)
    assert (described.version, described.scored["test_accuracy"]) == ("1.1", metrics["test_accuracy"])
    card = (folder / artifacts.CARD).read_text()
    assert "int8, of version 1.0" in card
    assert "python -m models quantize blobs_mlp --version 1.1 --from 1.0" in card


def test_torchscript_gives_the_golden_answers_whatever_the_batch(made):
    _, folder = made
    described = signature.read(folder / signature.FILE_NAME)
    with np.load(folder / artifacts.GOLDEN) as golden:
        inputs, wanted = torch.from_numpy(golden["inputs"]), golden["probabilities"]
    network = torch.jit.load(str(folder / artifacts.TORCHSCRIPT)).eval()
    inputs = prepare(inputs, described.input)
    for size in (1, 7, len(inputs)):
        answers = [
            probabilities(forward(network, inputs[at : at + size]), "softmax", described.output.temperature)
            for at in range(0, len(inputs), size)
        ]
        assert np.array_equal(torch.cat(answers).numpy(), wanted)


def test_it_is_int8_and_near_its_source(made):
    _, folder = made
    network = torch.jit.load(str(folder / artifacts.TORCHSCRIPT)).eval()
    kinds = {node.kind() for node in network.inlined_graph.nodes()}
    assert {"quantized::linear_relu", "quantized::linear"} <= kinds
    inputs = prepare(blobs().test_inputs, ENTRY.input)
    agree = forward(network, inputs).argmax(1) == forward(load_network(ENTRY, "1.0"), inputs).argmax(1)
    assert agree.float().mean() > 0.98


@pytest.mark.usefixtures("made")
def test_it_is_packed_like_any_other(tmp_path):
    path, _ = archiving.archive(ENTRY, "1.1", tmp_path / "store")
    assert path.name == "blobs_mlp-1.1.mar"


@pytest.mark.parametrize(
    ("source", "version", "reason"),
    [
        ("1.0", "1.0", "a version of its own"),
        ("1.1", "1.2", "1.1 is the int8 form of 1.0 and has no weights of its own; name 1.0"),
        ("3.0", "3.1", "3.0 is not trained"),
        ("1.0", "next", "not digits"),
    ],
)
@pytest.mark.usefixtures("made")
def test_what_cannot_be_made_is_told(source, version, reason):
    with pytest.raises(ArtifactError, match=reason):
        quantize(ENTRY, source, version)


def test_nothing_is_written_where_accuracy_is_lost(blobs_artifact, monkeypatch):
    monkeypatch.setattr(quantizing, "MARGIN", -1.0)
    with pytest.raises(ArtifactError, match=r"as int8 scores 0\.9.* nothing was written"):
        quantize(ENTRY, "1.0", "1.1")
    assert [path.name for path in blobs_artifact.parent.iterdir()] == ["1.0"]


def test_other_processors_are_told(blobs_artifact, monkeypatch):
    monkeypatch.setattr(quantizing, "ENGINE", "of another processor")
    with pytest.raises(ArtifactError, match="needs an x86 processor"):
        quantize(ENTRY, "1.0", "1.1")
    assert not (blobs_artifact.parent / "1.1").exists()
