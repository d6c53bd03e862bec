"""The results of training: folders ``artifacts/<model>/<version>/``, each written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handlers.signature import (
    FILE_NAME,
    GOLDEN_FILE_NAME,
    OOD_REFERENCES_FILE_NAME,
    PHOTOGRAPHS_FILE_NAME,
    STEPS_FILE_NAME,
    Signature,
    SignatureError,
    read,
)
from models.errors import ArtifactError

ARTIFACTS_DIR = Path(os.environ.get("FASHION_ARTIFACTS_DIR", Path(__file__).parent.parent / "artifacts"))

WEIGHTS = "weights.pt"
TORCHSCRIPT = "model.pt"
PHOTOGRAPHS = PHOTOGRAPHS_FILE_NAME
OOD_REFERENCES = OOD_REFERENCES_FILE_NAME
STEPS = STEPS_FILE_NAME
METRICS = "metrics.json"
SIGNATURE = FILE_NAME
GOLDEN = GOLDEN_FILE_NAME
CARD = "MODEL_CARD.md"
CURVES = "curves.png"

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def folder(model: str, version: str) -> Path:
    """The folder of one model version's artifact.

    Raises:
        ArtifactError: ``version`` is not digits separated by dots, the only form that TorchServe accepts.
    """
    if not _VERSION.fullmatch(version):
        raise ArtifactError(f"version must be digits separated by dots, such as 1.0, got '{version}'")
    return ARTIFACTS_DIR / model / version


def metrics(model: str, version: str) -> dict[str, Any]:
    """Read ``metrics.json``.

    Raises:
        ArtifactError: it is missing or not JSON.
    """
    path = folder(model, version) / METRICS
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(
            f"{model} {version} is not trained ({path} is missing); run: make train MODEL={model} VERSION={version}"
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is unreadable ({error}); train {model} {version} again") from error
    return content


def signature(model: str, version: str) -> Signature:
    """Read ``signature.json``.

    Raises:
        ArtifactError: it is missing or not valid.
    """
    try:
        return read(folder(model, version) / SIGNATURE)
    except SignatureError as error:
        raise ArtifactError(f"{error}; run: make train MODEL={model} VERSION={version}") from error


def optional_files(signature: Signature) -> list[str]:
    """The names of the files beside the usual ones that a version with this signature has."""
    present = {
        PHOTOGRAPHS: signature.output.photograph_temperature is not None,
        OOD_REFERENCES: signature.ood_threshold is not None,
        STEPS: signature.steps is not None,
    }
    return [name for name, is_present in present.items() if is_present]


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``target`` when the block ends, and is removed if the block fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        part, old = Path(temporary) / "new", Path(temporary) / "old"
        part.mkdir()
        yield part
        try:
            if target.exists():
                target.rename(old)
            part.rename(target)
        except BaseException:
            # Ctrl-C between the two renames: put the old folder back.
            if old.exists():
                old.rename(target)
            raise
