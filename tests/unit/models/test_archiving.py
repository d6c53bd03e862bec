"""Archives hold what serving needs, equal contents give equal bytes, and bad models are refused."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers import signature as signatures
from models import archiving
from models.__main__ import main
from models.archiving import archive
from models.catalog import CATALOG
from models.errors import ArchiveError, ArtifactError
from serving.store import archives

ROOT = Path(__file__).parents[3]
ENTRY = CATALOG["blobs_mlp"]


@pytest.mark.usefixtures("blobs_artifact")
def test_an_archive_holds_what_a_worker_needs(tmp_path):
    path, changed = archive(ENTRY, "1.0", tmp_path / "store")
    assert changed
    assert path.name == "blobs_mlp.mar"
    with zipfile.ZipFile(path) as packed:
        packed.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    names = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {"model.pt", "signature.json", "golden.npz", "model-config.yaml", "vector_classifier.py"} <= names
    assert {"MAR-INF/MANIFEST.json", "handlers/__init__.py", "handlers/signature.py"} <= names
    assert not [name for name in names if name.endswith(".pyc")]

    manifest = json.loads((unpacked / "MAR-INF/MANIFEST.json").read_text())
    assert manifest["model"]["modelName"] == "blobs_mlp"
    assert manifest["model"]["modelVersion"] == "1.0"
    assert manifest["model"]["serializedFile"] == "model.pt"
    assert (unpacked / "model-config.yaml").read_text().splitlines() == [
        "minWorkers: 1",
        "maxWorkers: 1",
        "batchSize: 128",
        "continuousBatching: true",
        "maxBatchDelay: 1",
        "responseTimeout: 15",
        "unbatchedWorker: true",
    ]
    signature = signatures.read(unpacked / "signature.json")
    golden = np.load(unpacked / "golden.npz")
    scores = torch.jit.load(unpacked / "model.pt")(torch.from_numpy(golden["inputs"]))
    answers = (scores / signature.output.temperature).softmax(1).detach().numpy()
    assert np.abs(answers - golden["probabilities"]).max() < 1e-5


def test_equal_contents_give_equal_bytes(blobs_artifact, tmp_path):
    first, _ = archive(ENTRY, "1.0", tmp_path / "first")
    # The files' times must not affect the archive.
    for file in blobs_artifact.iterdir():
        os.utime(file, (time.time() + 5000, time.time() + 5000))
    second, _ = archive(ENTRY, "1.0", tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    _, changed = archive(ENTRY, "1.0", tmp_path / "second")
    assert not changed
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"blobs_mlp.mar", "index.json", ".index.lock"}


@pytest.mark.usefixtures("blobs_artifact")
def test_the_index_lists_each_version_with_its_digest(tmp_path, artifacts_dir):
    first, _ = archive(ENTRY, "1.0", tmp_path)
    shutil.copytree(artifacts_dir / "blobs_mlp" / "1.0", artifacts_dir / "blobs_mlp" / "1.1")
    second, _ = archive(ENTRY, "1.1", tmp_path)
    assert [first.name, second.name] == ["blobs_mlp.mar", "blobs_mlp-1.1.mar"]
    index = json.loads((tmp_path / "index.json").read_text())
    assert index == {
        path.name: {
            "model": "blobs_mlp",
            "version": version,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "accuracy_floor": ENTRY.accuracy_floor,
        }
        for path, version in ((first, "1.0"), (second, "1.1"))
    }


@pytest.mark.usefixtures("blobs_artifact")
def test_an_edited_handler_is_packed_again(tmp_path, monkeypatch):
    handlers = tmp_path / "handlers"
    shutil.copytree(archiving.HANDLERS, handlers, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(archiving, "HANDLERS", handlers)
    archive(ENTRY, "1.0", tmp_path / "store")
    edited = handlers / "inputs" / "npy.py"
    edited.write_text(edited.read_text() + "\nEDITED = True\n")
    path, changed = archive(ENTRY, "1.0", tmp_path / "store")
    assert changed
    with zipfile.ZipFile(path) as packed:
        assert packed.read("handlers/inputs/npy.py").decode() == edited.read_text()


@pytest.mark.usefixtures("blobs_artifact")
@pytest.mark.parametrize("damaged", ["archive", "index"])
def test_a_damaged_archive_or_index_is_rebuilt(tmp_path, damaged):
    path, _ = archive(ENTRY, "1.0", tmp_path)
    whole, index = path.read_bytes(), (tmp_path / "index.json").read_text()
    if damaged == "archive":
        path.write_bytes(whole[:-1])
    else:
        (tmp_path / "index.json").write_text("{")
    archive(ENTRY, "1.0", tmp_path)
    assert path.read_bytes() == whole
    assert (tmp_path / "index.json").read_text() == index


@pytest.mark.parametrize("accuracy", [0.5, float("nan"), "0.99", None], ids=str)
def test_a_model_under_the_floor_is_refused(blobs_artifact, tmp_path, accuracy):
    metrics = json.loads((blobs_artifact / "metrics.json").read_text())
    (blobs_artifact / "metrics.json").write_text(json.dumps({**metrics, "test_accuracy": accuracy}))
    with pytest.raises(ArchiveError, match=r"blobs_mlp 1\.0.*train it"):
        archive(ENTRY, "1.0", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_model_without_metrics_is_refused(blobs_artifact, tmp_path):
    (blobs_artifact / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match="make train MODEL=blobs_mlp"):
        archive(ENTRY, "1.0", tmp_path / "store")


def test_a_missing_file_is_named(blobs_artifact, tmp_path):
    (blobs_artifact / "model.pt").unlink()
    with pytest.raises(ArchiveError, match=r"model\.pt is missing"):
        archive(ENTRY, "1.0", tmp_path / "store")


@pytest.mark.usefixtures("artifacts_dir")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("archive", "fashion_mlp"), "fashion_mlp 1.0 is not trained"),
        (("summary", "fashion_nothing"), "no model named 'fashion_nothing'"),
        (("evaluate", "fashion_mlp", "--version", "9.9"), "fashion_mlp 9.9 is not trained"),
        (
            ("train", "blobs_mlp", "--version", "../../etc"),
            "version must be digits separated by dots, such as 1.0, got '../../etc'",
        ),
    ],
    ids=["not trained", "unknown", "no such version", "malformed version"],
)
def test_the_command_line_refuses_in_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1, output


def test_the_summary_shows_structure_shapes_and_first_values(capsys):
    assert main(["summary", "fashion_convnet"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "(conv1): Conv2d(1, 6, kernel_size=(5, 5)",
        "[1, 16, 10, 10]",
        "61,706",
        "conv1.weight  [6, 1, 5, 5]  150",
    ):
        assert part in shown
    assert shown.count("…]") == 10


def test_evaluate_reproduces_the_metrics(blobs_artifact, capsys):
    assert main(["evaluate", "blobs_mlp"]) == 0
    scored = json.loads(capsys.readouterr().out)
    metrics = json.loads((blobs_artifact / "metrics.json").read_text())
    assert {name: metrics[name] for name in scored} == scored
    assert scored["test_accuracy"] > 0.9


def test_export_restores_a_deleted_torchscript_file(blobs_artifact, capsys):
    golden = np.load(blobs_artifact / "golden.npz")
    expected = torch.jit.load(blobs_artifact / "model.pt")(torch.from_numpy(golden["inputs"]))
    (blobs_artifact / "model.pt").unlink()
    assert main(["export", "blobs_mlp"]) == 0
    assert capsys.readouterr().out == f"blobs_mlp 1.0: checked on 1000 examples → {blobs_artifact / 'model.pt'}\n"
    assert torch.equal(torch.jit.load(blobs_artifact / "model.pt")(torch.from_numpy(golden["inputs"])), expected)


def test_an_unchanged_archive_needs_no_torch(blobs_artifact, tmp_path):
    archive(ENTRY, "1.0", tmp_path / "store")
    script = (
        "import sys; from models.__main__ import main; code = main(['archive', 'blobs_mlp'])\n"
        "print('torch' in sys.modules); sys.exit(code)"
    )
    environment = {
        **os.environ,
        "FASHION_ARTIFACTS_DIR": str(blobs_artifact.parents[1]),
        "FASHION_MODEL_STORE": str(tmp_path / "store"),
    }
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"blobs_mlp 1.0: unchanged → {tmp_path}/store/blobs_mlp.mar", "False"]


def test_list_names_the_catalog(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == list(CATALOG)


@pytest.mark.usefixtures("blobs_artifact")
def test_changed_serving_settings_change_the_archive(tmp_path):
    assert archive(ENTRY, "1.0", tmp_path)[1]
    assert not archive(ENTRY, "1.0", tmp_path)[1]
    changed = dataclasses.replace(ENTRY, serving=dataclasses.replace(ENTRY.serving, unbatched_worker=False))
    path, has_changed = archive(changed, "1.0", tmp_path)
    assert has_changed
    assert not archives.read(path).unbatched
