"""Finds what can be packed: the models of the catalog, and imported ones, which have no entry there."""

from __future__ import annotations

from models import artifacts
from models.catalog import CATALOG, Model
from models.errors import ArtifactError, UnknownModelError

# The member of ``metrics.json`` that only an imported version has: the name of its network's file.
IMPORTED = "imported_from"


def find(name: str, version: str) -> Model:
    """The catalog's entry of this name, or the imported model.

    Raises:
        UnknownModelError: the catalog does not list the name, and no such version was imported.
        ArtifactError: ``version`` is not digits separated by dots, or the imported version is damaged.
    """
    if name in CATALOG:
        return CATALOG[name]
    if not (artifacts.folder(name, version) / artifacts.METRICS).is_file():
        raise UnknownModelError(
            f"models/catalog.py lists no model '{name}', and no version {version} of it was imported; the catalog has "
            f"{', '.join(CATALOG)}, and python -m models import brings others"
        )
    if IMPORTED not in artifacts.metrics(name, version):
        raise ArtifactError(f"{name} {version} was trained here, but models/catalog.py no longer lists {name}")
    return _imported(name, version)


def _imported(name: str, version: str) -> Model:
    """An imported model, which has no floor: a rollout compares it with the live version."""
    kind = artifacts.signature(name, version).input.kind
    return Model(name=name, handler=f"{kind}_classifier", accuracy_floor=0.0)


def every(version: str) -> list[Model]:
    """The catalog's entries, and the models of which this version was imported, by name."""
    names = sorted(path.parent.parent.name for path in artifacts.ARTIFACTS_DIR.glob(f"*/{version}/{artifacts.METRICS}"))
    others = [name for name in names if name not in CATALOG and IMPORTED in artifacts.metrics(name, version)]
    return [*CATALOG.values(), *(_imported(name, version) for name in others)]
