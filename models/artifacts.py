"""Where training leaves its results: ``artifacts/<model>/<version>/``, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handlers.signature import FILE_NAME, Signature, SignatureError, read
from models.errors import ArtifactError

ARTIFACTS_DIR = Path(os.environ.get("FASHION_ARTIFACTS_DIR", Path(__file__).parent.parent / "artifacts"))

WEIGHTS = "weights.pt"
TORCHSCRIPT = "model.pt"
METRICS = "metrics.json"
SIGNATURE = FILE_NAME
GOLDEN = "golden.npz"
CARD = "MODEL_CARD.md"
CURVES = "curves.png"

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def folder(model: str, version: str) -> Path:
    """Where the artifact of one model version lies.

    Raises:
        ArtifactError: a version that is not digits separated by dots, which is all that TorchServe accepts.
    """
    if not _VERSION.fullmatch(version):
        raise ArtifactError(f"version '{version}' is not digits separated by dots, such as 1.0")
    return ARTIFACTS_DIR / model / version


def metrics(model: str, version: str) -> dict[str, Any]:
    """Read ``metrics.json``.

    Raises:
        ArtifactError: there is none, or it is not JSON.
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


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place when the block ends, and is removed if it fails."""
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
            # Ctrl-C between the two: what was there stays.
            if old.exists():
                old.rename(target)
            raise
