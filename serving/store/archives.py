"""Archives (``.mar``) as the service sees them before it starts: whole, readable, and saying what they hold."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from numpy.typing import NDArray

from handlers import signature
from handlers.signature import Signature, SignatureError
from serving.errors import ArchiveError
from serving.store import index
from serving.store.index import Listed

MANIFEST = "MAR-INF/MANIFEST.json"
GOLDEN = "golden.npz"


@dataclasses.dataclass(frozen=True)
class Golden:
    """Inputs whose right answers are known from training.

    Attributes:
        inputs: uint8 or float32, [K, *input shape] of the signature, K >= 1.
        probabilities: float32 [K, labels], 0 to 1.
    """

    inputs: NDArray[Any]
    probabilities: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Archive:
    """One archive of the model store.

    Attributes:
        path: the file.
        model, version: as in its manifest, which is what TorchServe goes by.
        signature: what goes in and out.
        golden: known answers; ``None`` for an archive packed without.
        batch_size: requests that TorchServe hands to a worker at once, at most.
    """

    path: Path
    model: str
    version: str
    signature: Signature
    golden: Golden | None
    batch_size: int


def _golden(packed: zipfile.ZipFile, described: Signature) -> Golden | None:
    if GOLDEN not in packed.namelist():
        return None
    # Never unpickled: an archive is data until a worker loads it.
    with np.load(io.BytesIO(packed.read(GOLDEN)), allow_pickle=False) as arrays:
        golden = Golden(arrays["inputs"], arrays["probabilities"])
    count = len(golden.inputs)
    shapes = (count, *described.input.shape), (count, len(described.output.labels))
    if count == 0 or (golden.inputs.shape, golden.probabilities.shape) != shapes:
        raise ValueError(f"{GOLDEN} does not fit {signature.FILE_NAME}")
    return golden


def _batch_size(packed: zipfile.ZipFile, config: str | None) -> int:
    """What the archive's configuration says, or TorchServe's default."""
    found = yaml.safe_load(packed.read(config)) if config in packed.namelist() else None
    return int((found or {}).get("batchSize", 1))


def read(path: Path) -> Archive:
    """Read one archive, all of it, so that damage anywhere is found.

    Raises:
        ArchiveError: not a zip file, damaged, or without a manifest, a file that the manifest names, or a signature.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            damaged = packed.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            _require(packed, MANIFEST, signature.FILE_NAME)
            manifest = json.loads(packed.read(MANIFEST))["model"]
            _require(packed, manifest["handler"], manifest["serializedFile"])
            # A path inside the archive reads like one outside.
            described = signature.read(cast(Path, zipfile.Path(packed, signature.FILE_NAME)))
            name, version = str(manifest["modelName"]), str(manifest["modelVersion"])
            if (name, version) != (described.model, described.version):
                raise ValueError(
                    f"the manifest says {name} {version}, the signature {described.model} {described.version}"
                )
            batch_size = _batch_size(packed, manifest.get("configFile"))
            return Archive(path, name, version, described, _golden(packed, described), batch_size)
    # Damage shows itself as whatever the decompressor or a parser raises.
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError),
        *(zipfile.BadZipFile, yaml.YAMLError, SignatureError),
    ) as error:
        raise ArchiveError(f"{path}: not a usable archive ({_reason(error)}); run: make archive") from error


def _require(packed: zipfile.ZipFile, *names: str) -> None:
    missing = [name for name in names if name not in packed.namelist()]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return " ".join(str(error).split()) or type(error).__name__


def read_listed(entry: Listed) -> Archive:
    """Read an archive that the model store's index lists, after its digest was found right.

    Raises:
        ArchiveError: it is missing, not what was packed, cannot be used, or holds another version than the index says.
    """
    index.verify(entry)
    archive = read(entry.path)
    if (archive.model, archive.version) != (entry.model, entry.version):
        raise ArchiveError(
            f"{entry.path} holds {archive.model} {archive.version}, {index.NAME} says {entry.model} "
            f"{entry.version}; run: make archive MODEL={entry.model} VERSION={entry.version}"
        )
    return archive
