"""The MLP quantized to int8 and deployed over the trained version, as docs/deploying.md shows."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import requests
import torch

from models import artifacts, quantizing
from models.archiving import MODEL_STORE
from serving.settings import ROOT
from serving.store import index
from tests.support.place import make_place

MODEL = "fashion_mlp"

pytestmark = pytest.mark.skipif(
    quantizing.ENGINE not in torch.backends.quantized.supported_engines, reason="needs an x86 processor"
)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A running service whose MLP was replaced: version 1.0 by its int8 version 1.1."""
    folder = tmp_path_factory.mktemp("int8")
    place = make_place(folder, folder / "model_store")
    place.environment["FASHION_ARTIFACTS_DIR"] = str(folder / "artifacts")
    shutil.copytree(artifacts.folder(MODEL, "1.0"), folder / "artifacts" / MODEL / "1.0")

    def run(*arguments: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=place.environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    run("models", "archive", MODEL)
    place.start()
    assert "test accuracy 0.9" in run("models", "quantize", MODEL, "--version", "1.1")
    run("models", "archive", MODEL, "--version", "1.1")
    run("serving", "deploy", MODEL, "1.1", "--grace", "0.5")
    yield place
    place.end()


def test_the_int8_version_returns_its_golden_answers(deployed):
    with np.load(deployed.settings.run.parent / "artifacts" / MODEL / "1.1" / artifacts.GOLDEN) as golden:
        images, expected = golden["inputs"], golden["probabilities"]
    answers = []
    for image in images[:50]:
        answer = requests.post(
            f"{deployed.gateway}/predictions/{MODEL}",
            data=image.tobytes(),
            headers={"Content-Type": "application/octet-stream"},
            timeout=10,
        )
        assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "1.1")
        answers.append(list(answer.json()["probabilities"].values()))
    assert np.allclose(answers, expected[:50], rtol=0, atol=1e-6)


def test_an_explanation_is_refused_with_the_reason(deployed):
    with (ROOT / "examples/ankle_boot.png").open("rb") as image:
        answer = requests.post(
            f"{deployed.gateway}/explanations/{MODEL}", data=image, headers={"Content-Type": "image/png"}, timeout=10
        )
    assert answer.status_code == 422
    assert "version 1.1 is int8" in answer.json()["detail"]


def test_the_index_lists_both_versions(deployed):
    listed = [(entry.model, entry.version) for entry in index.read(deployed.settings.model_store, None)]
    assert listed == [(MODEL, "1.0"), (MODEL, "1.1")]
    assert deployed.settings.model_store != MODEL_STORE
