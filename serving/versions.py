"""Which versions there are, which of them answer, and what they are: for ``python -m serving status``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.table import Table

from serving import archives, live, model_index
from serving.errors import ServingError
from serving.live import Live
from serving.management import Model
from serving.model_index import Listed
from serving.settings import Settings

# Digits of a digest that tell it from every other.
_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Version:
    """One version, in words.

    Attributes:
        model, version: which.
        role: ``live``, ``canary``, ``previous``; ``registered`` while a rollout tries it; empty for any other.
        share: of the requests that ask for no version, in percent.
        workers: how many take requests, of how many.
        accuracy: test accuracy, 0 to 1; ``None`` where the archive cannot be read.
        sha256: what the index says of the archive.
        intact: the archive is what the index says.
    """

    model: str
    version: str
    role: str
    share: float
    workers: str
    accuracy: float | None
    sha256: str
    intact: bool


def found(given: Settings, models: Sequence[Model]) -> list[Version]:
    """All versions that the model store's index lists, and whatever else runs, by model and version.

    Args:
        given: of the service.
        models: what runs.

    Raises:
        ServingError: index or state cannot be read.
    """
    state = live.read(given.run)
    running = {(model.name, model.version): model for model in models}
    listed = {(entry.model, entry.version): entry for entry in model_index.read(given.model_store)}
    names = sorted({*running, *listed}, key=lambda name: (name[0], model_index.version_key(name[1])))
    return [_version(name, state, running.get(name), listed.get(name)) for name in names]


def table(given: Settings, models: Sequence[Model]) -> Table:
    """``found``, for people; what cannot be read is told in its place."""
    drawn = Table("model", "version", "", "requests", "workers", "accuracy", "SHA-256")
    try:
        rows = found(given, models)
    except ServingError as error:
        drawn.caption = str(error)
        return drawn
    for row in rows:
        drawn.add_row(
            *(row.model, row.version, row.role, f"{row.share:g} %" if row.share else "-", row.workers),
            "-" if row.accuracy is None else f"{row.accuracy:.4f}",
            (row.sha256[:_DIGITS] or "not in the index") + ("" if row.intact else ", not what is there"),
        )
    return drawn


def _version(name: tuple[str, str], state: Mapping[str, Live], running: Model | None, listed: Listed | None) -> Version:
    role, share = _role(name[1], state.get(name[0]), running is not None)
    accuracy, intact = None, True
    if listed:
        try:
            accuracy = archives.read_listed(listed).signature.scored.get("test_accuracy")
        except ServingError:
            intact = False
    ready = sum(worker.ready for worker in running.workers) if running else 0
    workers = f"{ready} of {len(running.workers)}" if running else "-"
    return Version(*name, role, share, workers, accuracy, listed.sha256 if listed else "", intact)


def _role(version: str, known: Live | None, running: bool) -> tuple[str, float]:
    canary = known.canary if known else None
    if canary and version == canary.version:
        return "canary", canary.percent
    if known and version == known.version:
        return "live", 100 - (canary.percent if canary else 0)
    if running:
        return "registered", 0
    return ("previous", 0) if known and version in known.previous else ("", 0)
