"""Training is reproducible, writes whole artifacts, and keeps the test set out."""

import dataclasses
import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from models import artifacts, datasets, training
from models.building import build, load_network, quick
from models.catalog import CATALOG
from models.errors import DataError
from models.training import prepare, train

ROOT = Path(__file__).parents[3]
FILES = {
    "weights.pt",
    "model.pt",
    "signature.json",
    "metrics.json",
    "golden.npz",
    "curves.png",
    "confusion_matrix.png",
    "errors.png",
    "MODEL_CARD.md",
}


def small(dataset, count=2000):
    """The same data with fewer training examples."""
    return dataclasses.replace(
        dataset, train_inputs=dataset.train_inputs[:count], train_targets=dataset.train_targets[:count]
    )


@pytest.fixture(scope="module")
def few_images():
    return small(datasets.fashion_mnist())


@pytest.mark.parametrize("name", ["fashion_mlp", "fashion_convnet"])
def test_the_same_seed_gives_byte_identical_weights(name, few_images, silent):
    entry = CATALOG[name]
    settings = dataclasses.replace(quick(entry.training), epochs=2, validation=500)

    def digest(seed):
        network = train(entry, few_images, settings, seed, silent).network
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values())).hexdigest()

    first = digest(3)
    assert digest(3) == first
    assert digest(4) != first


def test_two_builds_write_the_same_weights_and_archive_inputs(artifacts_dir, silent, short_training):
    entry = CATALOG["blobs_mlp"]
    folders = []
    for version in ("1.0", "1.1"):
        build(entry, version, short_training, 0, silent)
        folders.append(artifacts_dir / "blobs_mlp" / version)
    for name in ("weights.pt", "golden.npz"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_an_artifact_is_whole(blobs_artifact):
    assert {path.name for path in blobs_artifact.iterdir()} == FILES
    metrics = json.loads((blobs_artifact / "metrics.json").read_text())
    assert metrics["test_accuracy"] > 0.9
    assert 0 <= metrics["expected_calibration_error"] < 0.2
    assert set(metrics["per_class"]["blob 0"]) == {"precision", "recall", "f1"}
    assert sum(map(sum, metrics["confusion_matrix"])) == 1000
    diagonal = sum(metrics["confusion_matrix"][index][index] for index in range(3))
    assert diagonal / 1000 == pytest.approx(metrics["test_accuracy"])
    assert metrics["parameters"] == 67
    assert metrics["seed"] == 0
    assert metrics["train_seconds"] > 0
    assert set(metrics["library_versions"]) >= {"python", "torch", "numpy"}
    assert metrics["dataset_digests"] == datasets.blobs().digests
    card = (blobs_artifact / "MODEL_CARD.md").read_text()
    assert f"{metrics['test_accuracy']:.4f}" in card
    for picture in ("curves.png", "confusion_matrix.png", "errors.png"):
        assert (blobs_artifact / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in card


def test_the_test_set_does_not_affect_training(silent, short_training):
    entry = CATALOG["blobs_mlp"]
    data = datasets.blobs()
    shuffled = dataclasses.replace(
        data, test_targets=data.test_targets.roll(1), test_inputs=data.test_inputs.roll(7, 0)
    )
    first = train(entry, data, short_training, 0, silent)
    second = train(entry, shuffled, short_training, 0, silent)
    assert first.temperature == second.temperature
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])


def test_a_terminal_is_left_without_the_bar(short_training):
    shown = io.StringIO()
    train(CATALOG["blobs_mlp"], datasets.blobs(), short_training, 0, Console(file=shown, force_terminal=True))
    # Rich erases the line on which the bar was.
    assert "blobs_mlp" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, [1, 2, 3]), (1e6, [])], ids=["always due", "never due"])
def test_without_a_terminal_epochs_get_a_line_when_one_is_due_and_the_last_none(
    seconds, epochs, short_training, monkeypatch
):
    monkeypatch.setattr(training, "SECONDS_PER_LINE", seconds)
    shown = io.StringIO()
    train(CATALOG["blobs_mlp"], datasets.blobs(), short_training, 0, Console(file=shown))
    lines = shown.getvalue().splitlines()
    assert [line.partition("  loss ")[0] for line in lines] == [f"blobs_mlp epoch {number}/4" for number in epochs]


@pytest.mark.usefixtures("artifacts_dir")
def test_independent_labels_train_by_sgd(silent):
    entry = CATALOG["sigmoid_net"]
    assert entry.training.optimizer == "sgd"
    assert entry.training.learning_rate == 0.01
    metrics = build(entry, "1.0", dataclasses.replace(entry.training, epochs=2), 0, silent)
    assert len(metrics["confusion_matrix"]) == 2
    assert artifacts.signature("sigmoid_net", "1.0").output.temperature == 1.0
    assert load_network(entry, "1.0").state_dict()["lin2.weight"].shape == (2, 5)


def test_prepare_pads_then_scales():
    spec = CATALOG["fashion_convnet"].input
    prepared = prepare(torch.full((1, 28, 28), 255, dtype=torch.uint8), spec)
    assert prepared.shape == (1, 1, 32, 32)
    assert isinstance(spec.gain, float)
    assert isinstance(spec.bias, float)
    assert prepared[0, 0, 0, 0].item() == pytest.approx(spec.bias)
    assert prepared[0, 0, 2, 2].item() == pytest.approx(255 * spec.gain + spec.bias)


def test_a_failed_write_keeps_the_old_artifact(tmp_path):
    target = tmp_path / "model" / "1.0"
    with artifacts.writing(target) as folder:
        (folder / "weights.pt").write_text("old")
    with pytest.raises(FileNotFoundError), artifacts.writing(target) as folder:
        (folder / "missing" / "weights.pt").write_text("new")
    assert (target / "weights.pt").read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["1.0"]
    with artifacts.writing(target) as folder:
        (folder / "weights.pt").write_text("new")
    assert (target / "weights.pt").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["1.0"]


def test_ctrl_c_while_an_artifact_is_replaced_keeps_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "1.0"
    target.mkdir()
    (target / "file").write_text("old")
    rename = Path.rename

    def interrupted(path, to):
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), artifacts.writing(target) as folder:
        (folder / "file").write_text("new")
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_ctrl_c_leaves_no_partial_files(tmp_path):
    environment = {"FASHION_ARTIFACTS_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", WAIT_IN_FIRST_STEP, "train", "sigmoid_net"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        assert process.stderr.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped; no partial files are left" in errors
    assert "Traceback" not in errors
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# The command line, except that the first training step waits for Ctrl-C. Processes started in the background of a shell
# inherit an ignored SIGINT, so its handler is set here.
WAIT_IN_FIRST_STEP = """
import signal, sys, time
from models import training, __main__
signal.signal(signal.SIGINT, signal.default_int_handler)
def wait(*arguments):
    print("training", file=sys.stderr, flush=True)
    time.sleep(60)
training.loss_of = wait
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("count", [0, 300, 399], ids=["none", "validation alone", "less than a batch"])
def test_fewer_examples_than_a_batch_are_refused(silent, short_training, count):
    settings = dataclasses.replace(short_training, validation=300, batch_size=100)
    with pytest.raises(DataError, match=f"blobs_mlp: {count} training examples, 300 of them .* a batch of 100; add"):
        train(CATALOG["blobs_mlp"], small(datasets.blobs(), count), settings, 0, silent)


def test_quick_is_one_epoch(few_images, silent):
    entry = CATALOG["fashion_mlp"]
    settings = dataclasses.replace(quick(entry.training), validation=500)
    assert len(train(entry, few_images, settings, 0, silent).history) == 1
