"""Pack an artifact into ``model_store/<model>.mar`` with torch-model-archiver, and list it in the store's index.

Equal contents give byte-identical archives.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from models import artifacts, index_writer
from models.catalog import DEFAULT_VERSION, Model
from models.errors import ArchiveError

ROOT = Path(__file__).parent.parent
HANDLERS = ROOT / "handlers"
MODEL_STORE = Path(os.environ.get("FASHION_MODEL_STORE", ROOT / "model_store"))

# The earliest date of the zip format. A fixed date makes archives independent of when they were built.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_MANIFEST = "MAR-INF/MANIFEST.json"
_CONFIG = "model-config.yaml"
_PACKED = (artifacts.TORCHSCRIPT, artifacts.SIGNATURE, artifacts.GOLDEN)
# A fixed value again; TorchServe warns about a manifest without this field.
_CREATED = "01/01/1980 00:00:00"


def check_quality(model: Model, version: str) -> None:
    """Compare the version's ``test_accuracy`` with the catalog's floor; models that return numbers have none.

    Raises:
        models.errors.ArtifactError: ``metrics.json`` or the signature is missing or unreadable.
        ArchiveError: the accuracy is missing or under the catalog's floor.
    """
    accuracy = artifacts.metrics(model.name, version).get("test_accuracy")
    if artifacts.signature(model.name, version).output.activation == "none":
        return
    if not isinstance(accuracy, float):
        raise ArchiveError(f"{model.name} {version}: metrics.json has no test_accuracy; train it again")
    # `not >=` refuses NaN too.
    if not accuracy >= model.accuracy_floor:
        raise ArchiveError(
            f"{model.name} {version} scores {accuracy:.4f}, under the catalog's floor of {model.accuracy_floor:.4f}; "
            f"train it longer (make train MODEL={model.name} VERSION={version})"
        )


def model_config(model: Model) -> str:
    """The archive's ``model-config.yaml``: the catalog's serving settings."""
    serving = model.serving
    return (
        f"minWorkers: {serving.workers}\n"
        f"maxWorkers: {serving.workers}\n"
        f"batchSize: {serving.batch_size}\n"
        "continuousBatching: true\n"
        f"maxBatchDelay: {serving.max_batch_delay_ms}\n"
        f"responseTimeout: {serving.response_timeout_s}\n"
        # For the supervisor (serving/store/archives.py).
        f"unbatchedWorker: {str(serving.unbatched_worker).lower()}\n"
    )


def _check_files(model: Model, version: str) -> tuple[str, ...]:
    """The names of the artifact's files that the archive holds.

    Raises:
        models.errors.ArtifactError: the signature is missing or invalid.
        ArchiveError: another file is missing.
    """
    folder = artifacts.folder(model.name, version)
    names = (*_PACKED, *artifacts.optional_files(artifacts.signature(model.name, version)))
    for name in names:
        if not (folder / name).is_file():
            raise ArchiveError(f"{folder / name} is missing; train or import {model.name} {version} again")
    return names


def _run_archiver(model: Model, version: str, folder: Path, names: tuple[str, ...], work: Path) -> Path:
    extra = work / "extra"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", f"{model.handler}.py")
    shutil.copytree(HANDLERS, extra / "handlers", ignore=ignored)
    for name in names:
        if name != artifacts.TORCHSCRIPT:
            shutil.copy(folder / name, extra / name)
    config = work / _CONFIG
    config.write_text(model_config(model))
    temporary = work / "tmp"
    temporary.mkdir()
    command = [
        *(sys.executable, "-c", "from model_archiver.model_packaging import generate_model_archive as run; run()"),
        *("--model-name", model.name, "--version", version, "--export-path", str(work)),
        *("--serialized-file", str(folder / artifacts.TORCHSCRIPT)),
        *("--handler", str(HANDLERS / f"{model.handler}.py")),
        *("--extra-files", str(extra), "--config-file", str(config)),
    ]
    # The archiver collects files in <temporary folder>/<model>, which concurrent runs would share.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    packed = work / f"{model.name}.mar"
    if result.returncode or not packed.is_file():
        # The last line is the reason; a traceback comes before it.
        reason = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise ArchiveError(f"torch-model-archiver failed for {model.name}: {reason}")
    return packed


def _normalize(archiver_output: Path, target: Path) -> None:
    """Rewrite the archive with sorted names and fixed dates; uncompressed, because weights hardly shrink."""
    with zipfile.ZipFile(archiver_output) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == _MANIFEST:
                manifest = json.loads(content)
                manifest["createdOn"] = _CREATED
                content = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
            entry = zipfile.ZipInfo(name, _ZIP_DATE)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, content)


def file_name(model: str, version: str) -> str:
    """``<model>.mar`` for the default version, ``<model>-<version>.mar`` for others, so that all fit in one folder."""
    return f"{model}.mar" if version == DEFAULT_VERSION else f"{model}-{version}.mar"


def _is_current(model: Model, folder: Path, names: tuple[str, ...], target: Path) -> bool:
    """Whether the archive has these settings, matches the index and is newer than its sources."""
    sources = [
        *(folder / name for name in names),
        *HANDLERS.rglob("*.py"),
        *(ROOT / "models" / name for name in ("catalog.py", "archiving.py")),
    ]
    try:
        with zipfile.ZipFile(target) as packed:
            config = packed.read(_CONFIG).decode()
        newest = max(source.stat().st_mtime_ns for source in sources)
        current = target.stat().st_mtime_ns > newest and config == model_config(model)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return current and index_writer.lists(target.parent, target)


def archive(model: Model, version: str, store: Path = MODEL_STORE) -> tuple[Path, bool]:
    """Pack one model version into ``store``, under its ``file_name``, and list it in the store's index.

    Args:
        model, version: the model version to pack.
        store: the model store, created if missing.

    Returns:
        The archive's path, and whether its bytes changed.

    Raises:
        models.errors.ArtifactError: the version is not trained.
        ArchiveError: its accuracy is under the floor, a file is missing, or torch-model-archiver failed.
    """
    check_quality(model, version)
    folder = artifacts.folder(model.name, version)
    names = _check_files(model, version)
    target = store / file_name(model.name, version)
    if _is_current(model, folder, names, target):
        return target, False
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archiving-", dir=store) as work:
        fresh = Path(work) / "fresh.mar"
        _normalize(_run_archiver(model, version, folder, names, Path(work)), fresh)
        changed = not target.is_file() or target.read_bytes() != fresh.read_bytes()
        index_writer.record(store, target, model.name, version, model.accuracy_floor, fresh)
    return target, changed
