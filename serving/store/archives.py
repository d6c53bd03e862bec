"""Read and verify archives (``.mar``) before TorchServe loads them."""

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


@dataclasses.dataclass(frozen=True)
class Golden:
    """Golden examples: inputs, and the network's answers to them after training.

    Attributes:
        inputs: uint8 or float32, [K, *input shape] of the signature, K >= 1.
        probabilities: float32 [K, labels], 0 to 1; or the numbers of a model that returns numbers.
    """

    inputs: NDArray[Any]
    probabilities: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Archive:
    """One archive of the model store.

    Attributes:
        path: the file.
        model, version: from the manifest, which TorchServe uses.
        signature: of the network's inputs and outputs.
        golden: ``None`` for an archive without golden examples.
        unbatched: one more worker answers, without batches, requests that are alone in flight.
    """

    path: Path
    model: str
    version: str
    signature: Signature
    golden: Golden | None
    unbatched: bool


def _golden(packed: zipfile.ZipFile, expected: Signature) -> Golden | None:
    if signature.GOLDEN_FILE_NAME not in packed.namelist():
        return None
    # No pickles: only a worker may run code of an archive.
    with np.load(io.BytesIO(packed.read(signature.GOLDEN_FILE_NAME)), allow_pickle=False) as arrays:
        golden = Golden(arrays["inputs"], arrays["probabilities"])
    count = max(1, len(golden.inputs))
    shapes = (count, *expected.input.shape), (count, len(expected.output.labels))
    if (golden.inputs.shape, golden.probabilities.shape) != shapes:
        raise ValueError(f"the shapes in {signature.GOLDEN_FILE_NAME} do not match {signature.FILE_NAME}")
    return golden


def _unbatched(packed: zipfile.ZipFile, config: str | None) -> bool:
    """The entry ``unbatchedWorker`` of the archive's configuration. TorchServe ignores it."""
    settings = yaml.safe_load(packed.read(config)) if config in packed.namelist() else None
    unbatched = (settings or {}).get("unbatchedWorker", False)
    if not isinstance(unbatched, bool):
        raise ValueError(f"unbatchedWorker in {config} must be true or false, got {unbatched!r}")
    return unbatched


def read(path: Path) -> Archive:
    """Read one archive completely, so that any damage is detected.

    Raises:
        ArchiveError: not a zip file, damaged, or a required file is missing.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            damaged = packed.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            _require(packed, MANIFEST, signature.FILE_NAME)
            manifest = json.loads(packed.read(MANIFEST))["model"]
            _require(packed, manifest["handler"], manifest["serializedFile"])
            # zipfile.Path has the methods of Path that signature.read uses.
            described = signature.read(cast(Path, zipfile.Path(packed, signature.FILE_NAME)))
            name, version = str(manifest["modelName"]), str(manifest["modelVersion"])
            if (name, version) != (described.model, described.version):
                raise ValueError(
                    f"the manifest names {name} {version}, the signature {described.model} {described.version}"
                )
            unbatched = _unbatched(packed, manifest.get("configFile"))
            return Archive(path, name, version, described, _golden(packed, described), unbatched)
    # Damaged content can raise any of these in the decompressor or a parser.
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError),
        *(zipfile.BadZipFile, yaml.YAMLError, SignatureError),
    ) as error:
        raise ArchiveError(f"{path} is not a usable archive ({_reason(error)}); run: make archive") from error


def _require(packed: zipfile.ZipFile, *names: str) -> None:
    missing = [name for name in names if name not in packed.namelist()]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return " ".join(str(error).split()) or type(error).__name__


def read_listed(entry: Listed) -> Archive:
    """Verify the digest of an archive in the model store's index, and read the archive.

    Raises:
        ArchiveError: it is missing, damaged, or holds another version than the index lists.
    """
    index.verify(entry)
    archive = read(entry.path)
    if (archive.model, archive.version) != (entry.model, entry.version):
        raise ArchiveError(
            f"{entry.path} holds {archive.model} {archive.version}, but {index.NAME} lists {entry.model} "
            f"{entry.version}; run: make archive MODEL={entry.model} VERSION={entry.version}"
        )
    return archive
