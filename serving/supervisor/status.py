"""The table of versions that ``python -m serving status`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from serving.errors import ServingError
from serving.settings import Settings
from serving.store import archives, index, live
from serving.store.index import Listed
from serving.store.live import Live
from serving.torchserve.management import Model

# 48 bits: enough to tell archives apart.
_DIGITS = 12


def version_table(settings: Settings, models: Sequence[Model]) -> Table:
    """All versions that the index lists or TorchServe has registered. An error is shown in the caption.

    Args:
        settings: of the service.
        models: the registered versions.
    """
    table = Table("model", "version", "", "requests", "workers", "accuracy", "SHA-256")
    try:
        state = live.read(settings.run)
        entries = index.read(settings.model_store, settings.store_key)
        listed = {(entry.model, entry.version): entry for entry in entries}
    except ServingError as error:
        table.caption = str(error)
        return table
    running = {(model.name, model.version): model for model in models}
    for name in sorted({*running, *listed}, key=lambda name: (name[0], index.version_key(name[1]))):
        role, share = _role(name[1], state.get(name[0]), name in running)
        workers = running[name].workers if name in running else ()
        ready = f"{sum(worker.ready for worker in workers)} of {len(workers)}" if name in running else "-"
        table.add_row(*name, role, f"{share:g} %" if share else "-", ready, *_archive(listed.get(name)))
    return table


def _archive(listed: Listed | None) -> tuple[str, str]:
    """Test accuracy and digest of an archive."""
    if listed is None:
        return "-", "not in the index"
    digest = listed.sha256[:_DIGITS]
    try:
        accuracy = archives.read_listed(listed).signature.scored.get("test_accuracy")
    except ServingError:
        return "-", f"{digest}, but the archive differs"
    return "-" if accuracy is None else f"{accuracy:.4f}", digest


def _role(version: str, known: Live | None, registered: bool) -> tuple[str, float]:
    """A version's role, and its share, in percent, of the requests that name no version."""
    canary = known.canary if known else None
    if canary and version == canary.version:
        return "canary", canary.percent
    if known and version == known.version:
        return "live", 100 - (canary.percent if canary else 0)
    if registered:
        return "registered", 0
    return ("previous", 0) if known and version in known.previous else ("", 0)
