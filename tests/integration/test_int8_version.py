"""The MLP's int8 form, made of the trained version and deployed over it, as docs/deploying.md shows."""

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
    """A service whose MLP went from 1.0 to its int8 form 1.1 while it ran."""
    folder = tmp_path_factory.mktemp("int8")
    place = make_place(folder, folder / "model_store")
    place.environment["FASHION_ARTIFACTS_DIR"] = str(folder / "artifacts")
    shutil.copytree(artifacts.folder(MODEL, "1.0"), folder / "artifacts" / MODEL / "1.0")

    def run(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=place.environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("models", "archive", MODEL)
    place.start()
    assert "test accuracy 0.9" in run("models", "quantize", MODEL, "--version", "1.1")
    run("models", "archive", MODEL, "--version", "1.1")
    run("serving", "deploy", MODEL, "1.1", "--grace", "0.5")
    yield place
    place.end()


def test_int8_version_answers(deployed):
    with np.load(deployed.settings.run.parent / "artifacts" / MODEL / "1.1" / artifacts.GOLDEN) as golden:
        images, wanted = golden["inputs"], golden["probabilities"]
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
    assert np.allclose(answers, wanted[:50], rtol=0, atol=1e-6)


def test_explanation_is_refused_in_words(deployed):
    with (ROOT / "examples/ankle_boot.png").open("rb") as image:
        answer = requests.post(
            f"{deployed.gateway}/explanations/{MODEL}", data=image, headers={"Content-Type": "image/png"}, timeout=10
        )
    assert answer.status_code == 422
    assert "version 1.1 is int8" in answer.json()["detail"]


def test_index_has_both(deployed):
    listed = [(entry.model, entry.version) for entry in index.read(deployed.settings.model_store)]
    assert listed == [(MODEL, "1.0"), (MODEL, "1.1")]
    assert deployed.settings.model_store != MODEL_STORE
