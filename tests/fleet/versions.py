"""Versions of a small model, good and bad ones, as model stores to bake into images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from models import index_writer
from models.archiving import file_name
from serving import settings
from tests.support import packing, scenes

MODEL = "blobs_mlp"
# Each with other probabilities, so that an answer shows which version gave it.
GOOD = {"1.0": 1.0, "1.1": 1.5, "1.2": 2.0}
WRONG = "2.0"
NEVER_READY = "2.1"


def make(folder: Path) -> dict[str, Path]:
    """Write one model store for each version, with one archive; return the stores by version."""
    source = settings.read().model_store / f"{MODEL}.mar"
    stores = {version: folder / version for version in (*GOOD, WRONG, NEVER_READY)}
    for version, store in stores.items():
        scenes.variant(source, store, version, workers=1, sharpness=GOOD.get(version, 1.0))
    with zipfile.ZipFile(stores[WRONG] / file_name(MODEL, WRONG)) as packed:
        golden = np.load(io.BytesIO(packed.read("golden.npz")))
    swapped = packing.npz(inputs=golden["inputs"], probabilities=golden["probabilities"][:, ::-1].copy())
    _change(stores[WRONG], WRONG, "golden.npz", swapped)
    _change(stores[NEVER_READY], NEVER_READY, "vector_classifier.py", b"import time\ntime.sleep(3600)\n")
    return stores


def archives(stores: dict[str, Path]) -> list[Path]:
    """The archives of the good versions."""
    return [stores[version] / file_name(MODEL, version) for version in GOOD]


def _change(store: Path, version: str, name: str, content: bytes) -> None:
    path = store / file_name(MODEL, version)
    with zipfile.ZipFile(path) as packed:
        files = {each: packed.read(each) for each in packed.namelist()}
    with zipfile.ZipFile(path, "w") as packed:
        for each, old in files.items():
            packed.writestr(each, content if each == name else old)
    index_writer.record(store, path, MODEL, version, 0.5)
