"""Which versions there are, which of them answer, and what they are: for ``python -m serving status``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from serving.errors import ServingError
from serving.settings import Settings
from serving.store import archives, index, live
from serving.store.index import Listed
from serving.store.live import Live
from serving.torchserve.management import Model

# Digits of a digest that tell it from every other.
_DIGITS = 12


def version_table(given: Settings, models: Sequence[Model]) -> Table:
    """All versions that the model store's index lists, and whatever else runs; what cannot be read is in the caption.

    Args:
        given: of the service.
        models: what runs.
    """
    drawn = Table("model", "version", "", "requests", "workers", "accuracy", "SHA-256")
    try:
        state = live.read(given.run)
        listed = {(entry.model, entry.version): entry for entry in index.read(given.model_store)}
    except ServingError as error:
        drawn.caption = str(error)
        return drawn
    running = {(model.name, model.version): model for model in models}
    for name in sorted({*running, *listed}, key=lambda name: (name[0], index.version_key(name[1]))):
        role, share = _role(name[1], state.get(name[0]), name in running)
        workers = running[name].workers if name in running else ()
        taking = f"{sum(worker.ready for worker in workers)} of {len(workers)}" if name in running else "-"
        drawn.add_row(*name, role, f"{share:g} %" if share else "-", taking, *_archive(listed.get(name)))
    return drawn


def _archive(listed: Listed | None) -> tuple[str, str]:
    """Test accuracy and digest of an archive."""
    if listed is None:
        return "-", "not in the index"
    digest = listed.sha256[:_DIGITS]
    try:
        accuracy = archives.read_listed(listed).signature.scored.get("test_accuracy")
    except ServingError:
        return "-", f"{digest}, not what is there"
    return "-" if accuracy is None else f"{accuracy:.4f}", digest


def _role(version: str, known: Live | None, running: bool) -> tuple[str, float]:
    """What a version is to the service, and its share of the requests that ask for no version, in percent."""
    canary = known.canary if known else None
    if canary and version == canary.version:
        return "canary", canary.percent
    if known and version == known.version:
        return "live", 100 - (canary.percent if canary else 0)
    if running:
        return "registered", 0
    return ("previous", 0) if known and version in known.previous else ("", 0)
