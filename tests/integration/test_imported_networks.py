"""Networks from elsewhere, imported, packed, served by a real TorchServe, and deployed."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from torch import nn

from serving.settings import ROOT
from tests.support.place import make_place

LABELS = ("left", "right")
# Of numbers of this size, float32 keeps less than four digits behind the point.
SCALE = 1e5
SWITCHES = ("warm", "bright", "loud")


class Halves(nn.Module):
    """Which half of a gray picture is brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((1, 2))
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.gain * self.pool(x).flatten(1)
        return scores


class Prices(nn.Module):
    """Large numbers."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.scale = SCALE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers: torch.Tensor = self.linear(x) * self.scale
        return numbers


def save(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks, labels and examples, as they come from elsewhere."""
    folder = tmp_path_factory.mktemp("imported")
    random = np.random.default_rng(3)
    pictures = random.integers(0, 256, (200, 12, 20), dtype=np.uint8)
    np.savez(folder / "halves.npz", inputs=pictures, targets=halves(pictures))
    save(Halves(), folder / "halves.pt")
    (folder / "halves.txt").write_text("\n".join(LABELS))
    torch.manual_seed(3)
    linear = nn.Linear(5, 3)
    inputs = torch.from_numpy(random.normal(0, 2, (200, 5)).astype(np.float32))
    np.savez(folder / "switches.npz", inputs=inputs.numpy(), targets=(linear(inputs) > 0).int().numpy())
    save(linear, folder / "switches.pt")
    (folder / "switches.txt").write_text("\n".join(SWITCHES))
    np.savez(folder / "prices.npz", inputs=inputs.numpy(), targets=linear(inputs).detach().numpy() * SCALE)
    save(Prices(linear), folder / "prices.pt")
    (folder / "prices.txt").write_text("\n".join(SWITCHES))
    return folder


def halves(pictures: np.ndarray) -> np.ndarray:
    """The index of the brighter half of each picture."""
    brighter: np.ndarray = pictures[:, :, 10:].mean((1, 2)) > pictures[:, :, :10].mean((1, 2))
    return brighter.astype(np.int64)


@pytest.fixture(scope="module")
def served(folder):
    """A running service with the imported models, and a function that runs a command at its folders."""
    place = make_place(folder, folder / "model_store")
    place.environment["FASHION_ARTIFACTS_DIR"] = str(folder / "artifacts")

    def run(*arguments: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=place.environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    bring(run, folder, "halves")
    bring(run, folder, "switches", "--scores", "sigmoid")
    bring(run, folder, "prices", "--scores", "none")
    for name in ("halves", "switches", "prices"):
        run("models", "archive", name)
    place.start()
    yield place, run
    place.end()


def bring(run, folder, name, *arguments):
    files = ("--network", f"{name}.pt", "--labels", f"{name}.txt", "--examples", f"{name}.npz")
    paths = [str(folder / value) if "." in value else value for value in files]
    return run("models", "import", name, *paths, *arguments)


def post(place, model, body, content_type):
    answer = requests.post(
        f"{place.gateway}/predictions/{model}", data=body, headers={"Content-Type": content_type}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_gray_pictures_of_another_size_are_classified(served, folder):
    place, _ = served
    pictures = np.load(folder / "halves.npz")["inputs"][:50]
    answers = post(place, "halves", pictures.tobytes(), "application/octet-stream").json()
    assert [answer["label"] for answer in answers] == [LABELS[index] for index in halves(pictures)]


def test_independent_labels_have_the_networks_probabilities(served, folder):
    place, _ = served
    arrays = np.load(folder / "switches.npz")
    answers = requests.post(
        f"{place.gateway}/predictions/switches", json=arrays["inputs"][:20].tolist(), timeout=30
    ).json()
    for answer, targets in zip(answers, arrays["targets"], strict=False):
        assert answer["labels"] == [label for label, target in zip(SWITCHES, targets, strict=True) if target]


def test_numbers_are_answered_as_they_are(served, folder):
    place, _ = served
    arrays = np.load(folder / "prices.npz")
    answers = requests.post(f"{place.gateway}/predictions/prices", json=arrays["inputs"].tolist(), timeout=30).json()
    np.testing.assert_allclose([answer["values"] for answer in answers], arrays["targets"], atol=1e-4 * SCALE)


def test_a_new_version_of_numbers_needs_no_accuracy(served, folder):
    place, run = served
    bring(run, folder, "prices", "--scores", "none", "--version", "1.1")
    run("models", "archive", "prices", "--version", "1.1")
    run("serving", "deploy", "prices", "1.1", "--grace", "0.5")
    answer = requests.post(f"{place.gateway}/predictions/prices", json=[0.0] * 5, timeout=30)
    assert answer.headers["X-Model-Version"] == "1.1"


def test_an_imported_model_is_listed_with_its_input(served):
    place, _ = served
    assert requests.get(f"{place.gateway}/v1/models", timeout=10).json()["models"] == ["halves", "prices", "switches"]
    described = requests.get(f"{place.gateway}/v2/models/halves", timeout=10).json()
    assert described["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 12, 20]}]


def test_a_new_version_is_imported_and_deployed(served, folder):
    place, run = served
    bring(run, folder, "halves", "--version", "1.1")
    run("models", "archive", "halves", "--version", "1.1")
    run("serving", "deploy", "halves", "1.1", "--grace", "0.5")
    picture = np.zeros((12, 20), np.uint8)
    picture[:, 10:] = 255
    answer = post(place, "halves", picture.tobytes(), "application/octet-stream")
    assert (answer.headers["X-Model-Version"], answer.json()["label"]) == ("1.1", "right")
