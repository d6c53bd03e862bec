"""Exported networks give the archive's golden answers in their own runtimes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch

from models import artifacts, portable
from models.__main__ import main
from models.catalog import CATALOG, DEFAULT_VERSION

TOLERANCE = 1e-5


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    """A function that copies a trained version, to which the exports are written."""
    trained = artifacts.ARTIFACTS_DIR

    def copy(name: str):
        target = tmp_path / name / DEFAULT_VERSION
        target.mkdir(parents=True)
        for file in (trained / name / DEFAULT_VERSION).iterdir():
            if file.is_file():
                (target / file.name).symlink_to(file)
        monkeypatch.setattr(artifacts, "ARTIFACTS_DIR", tmp_path)
        return target

    return copy


def golden(folder):
    """The examples of the archive's golden file, and the probabilities that serving must give."""
    with np.load(folder / artifacts.GOLDEN) as file:
        return file["inputs"], file["probabilities"]


@pytest.mark.parametrize("name", CATALOG)
def test_onnx_runtime_gives_the_golden_answers_for_any_number_of_examples(artifact, name):
    folder = artifact(name)
    inputs, expected = golden(folder)
    path = portable.export(CATALOG[name], DEFAULT_VERSION, "onnx")
    assert path == folder / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [tensor.name for tensor in session.get_inputs()] == [CATALOG[name].input.name]
    for count in (1, 7, len(inputs)):
        (answers,) = session.run(["probabilities"], {CATALOG[name].input.name: inputs[:count]})
        np.testing.assert_allclose(answers, expected[:count], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CATALOG)
def test_torchs_program_gives_the_golden_answers_for_any_number_of_examples(artifact, name):
    inputs, expected = golden(artifact(name))
    program = torch.export.load(portable.export(CATALOG[name], DEFAULT_VERSION, "pt2")).module()
    for count in (1, 7, len(inputs)):
        answers = program(torch.from_numpy(inputs[:count])).detach()
        np.testing.assert_allclose(answers, expected[:count], atol=TOLERANCE, rtol=0)


def test_the_command_writes_a_triton_repository(artifact, capsys):
    folder = artifact("blobs_mlp")
    assert main(["export", "blobs_mlp", "--target", "triton"]) == 0
    assert str(folder / "triton") in capsys.readouterr().out
    files = sorted(
        str(path.relative_to(folder / "triton")) for path in (folder / "triton").rglob("*") if path.is_file()
    )
    assert files == [f"blobs_mlp/{name}" for name in ("1/model.onnx", "1/model.py", "config.pbtxt", "labels.txt")]
    # A second export leaves nothing of the first.
    (folder / "triton" / "blobs_mlp" / "old").touch()
    assert main(["export", "blobs_mlp", "--target", "triton"]) == 0
    assert not (folder / "triton" / "blobs_mlp" / "old").exists()


@pytest.mark.parametrize("target", get_args(portable.Target))
def test_an_untrained_version_is_refused_in_one_line(artifact, capsys, target):
    artifact("blobs_mlp")
    assert main(["export", "blobs_mlp", "--version", "9.9", "--target", target]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "make train MODEL=blobs_mlp VERSION=9.9" in error
    assert error.count("\n") == 1


def test_a_missing_package_is_named_in_one_line(artifact, capsys, monkeypatch):
    artifact("blobs_mlp")

    def missing(*_arguments, **_options):
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", missing)
    assert main(["export", "blobs_mlp", "--target", "onnx"]) == 1
    assert capsys.readouterr().err == "error: writing ONNX needs the package onnxscript; run: make export TARGET=onnx\n"
