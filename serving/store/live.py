"""Which versions are live: ``run/live.json``, the one place that says so.

    {"fashion_mlp": {"version": "1.1", "previous": ["1.0"], "canary": {"version": "1.2", "percent": 10.0}}}

Every start loads exactly these versions, also when a frontend starts again, and only a rollout changes them
(``serving/rollout/steps.py``). A model that has never been live is not in the file; its first start loads the highest
version of the model store's index.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving import files
from serving.errors import ArchiveError, StateError
from serving.store.index import Listed

NAME = "live.json"
# How many versions one can go back.
_REMEMBERED = 10


@dataclasses.dataclass(frozen=True)
class Canary:
    """A version that gets a share of the requests for its model that ask for no version.

    Attributes:
        version: as registered.
        percent: above 0, at most 100; two decimals count.
    """

    version: str
    percent: float


@dataclasses.dataclass(frozen=True)
class Live:
    """What is live of one model.

    Attributes:
        version: the default version: it answers the requests that ask for none.
        previous: versions that were live before it, the latest first.
        canary: the version on trial beside it, if there is one.
    """

    version: str
    previous: tuple[str, ...] = ()
    canary: Canary | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions to load, the default one first."""
        return (self.version, self.canary.version) if self.canary else (self.version,)

    def followed_by(self, version: str) -> Live:
        """The state after ``version`` has taken over."""
        kept = [self.version, *(old for old in self.previous if old != self.version)]
        return Live(version, tuple(old for old in kept if old != version)[:_REMEMBERED])


def read(run: Path) -> dict[str, Live]:
    """The state by model; empty before the first start.

    Args:
        run: the folder of the service's state.

    Raises:
        StateError: the file cannot be understood.
    """
    path = run / NAME
    try:
        raw = json.loads(path.read_text())
        return {
            model: Live(
                str(state["version"]),
                tuple(map(str, state["previous"])),
                Canary(str(state["canary"]["version"]), float(state["canary"]["percent"])) if state["canary"] else None,
            )
            for model, state in raw.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"{path} does not say which versions are live ({error!r}); put a backup of it in its place, or remove it "
            "to start with the highest version of each model"
        ) from error


def write(run: Path, state: Mapping[str, Live]) -> None:
    """Replace the state, whole or not at all.

    Raises:
        StateError: it cannot be written; the file is as it was.
    """
    path = run / NAME
    content = {model: dataclasses.asdict(live) for model, live in sorted(state.items())}
    try:
        files.write_atomically(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror or error}") from error


def settle(state: Mapping[str, Live], listed: Sequence[Listed]) -> tuple[dict[str, Live], list[Listed]]:
    """What a start is to load.

    Args:
        state: as ``read`` gives it.
        listed: the model store's index, in the order of ``model_index.read``.

    Returns:
        The state with every model of the index, and the entries to load: of each model the default version first,
        as TorchServe makes the first that it loads the default.

    Raises:
        ArchiveError: a version that is live is not in the index, or there is nothing to load.
    """
    # Somebody who removed an archive that is not live needs no message.
    highest = {entry.model: Live(entry.version) for entry in listed if entry.path.exists()}
    settled = {**highest, **state}
    entries = {(entry.model, entry.version): entry for entry in listed}
    chosen = []
    for model, live in sorted(settled.items()):
        for version in live.versions:
            if (model, version) not in entries:
                raise ArchiveError(
                    f"{model} {version} is live by {NAME}, but the model store's index does not list it; "
                    f"run: make archive MODEL={model} VERSION={version}, or take {model} out of {NAME}"
                )
            chosen.append(entries[model, version])
    if not chosen:
        raise ArchiveError("the model store holds none of the archives that its index lists; run: make archive")
    return settled, chosen
