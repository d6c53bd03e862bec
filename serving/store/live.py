"""``run/live.json``, the list of the live versions.

    {"fashion_mlp": {"version": "1.1", "previous": ["1.0"], "canary": {"version": "1.2", "percent": 10.0}}}

Each start or restart of TorchServe loads exactly these versions, and only a rollout changes them
(``serving/rollout/steps.py``). Of a model that is not in the file, the first start loads the highest version in the
model store's index.
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
# Up to this many rollbacks in a row are possible.
_PREVIOUS_LIMIT = 10


@dataclasses.dataclass(frozen=True)
class Canary:
    """A version that gets a share of its model's requests that name no version.

    Attributes:
        version: the registered version.
        percent: the share, above 0 and at most 100, with up to two decimals.
    """

    version: str
    percent: float


@dataclasses.dataclass(frozen=True)
class Live:
    """The live versions of one model.

    Attributes:
        version: the default version, which answers the requests that name no version.
        previous: the default versions before it, the latest first.
        canary: the version on trial, if there is one.
    """

    version: str
    previous: tuple[str, ...] = ()
    canary: Canary | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions to load, the default version first."""
        return (self.version, self.canary.version) if self.canary else (self.version,)

    def followed_by(self, version: str) -> Live:
        """The state after ``version`` has become the default version."""
        former = [self.version, *(old for old in self.previous if old != self.version)]
        return Live(version, tuple(old for old in former if old != version)[:_PREVIOUS_LIMIT])


def read(run: Path) -> dict[str, Live]:
    """The live versions of each model; empty before the first start.

    Args:
        run: the folder of the service's state.

    Raises:
        StateError: the file cannot be parsed.
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
            f"{path} is not a valid list of live versions ({error!r}); restore a backup, or delete the file to start "
            "with the highest version of each model"
        ) from error


def write(run: Path, state: Mapping[str, Live]) -> None:
    """Replace the file completely or not at all.

    Raises:
        StateError: the file cannot be written; it is unchanged.
    """
    path = run / NAME
    content = {model: dataclasses.asdict(live) for model, live in sorted(state.items())}
    try:
        files.write_atomically(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror or error}") from error


def settle(state: Mapping[str, Live], listed: Sequence[Listed]) -> tuple[dict[str, Live], list[Listed]]:
    """The versions that a start loads.

    Args:
        state: from ``read``.
        listed: the model store's index, from ``index.read``.

    Returns:
        The state, extended by the models that only the index has; and the entries to load. The default version of each
        model comes first, because TorchServe makes the first version that it loads the default.

    Raises:
        ArchiveError: the index does not list a live version, or there is nothing to load.
    """
    # A missing archive of a version that is not live is no error.
    highest = {entry.model: Live(entry.version) for entry in listed if entry.path.exists()}
    settled = {**highest, **state}
    entries = {(entry.model, entry.version): entry for entry in listed}
    chosen = []
    for model, live in sorted(settled.items()):
        for version in live.versions:
            if (model, version) not in entries:
                raise ArchiveError(
                    f"{NAME} lists {model} {version} as live, but the model store's index does not list it; "
                    f"run: make archive MODEL={model} VERSION={version}, or remove {model} from {NAME}"
                )
            chosen.append(entries[model, version])
    if not chosen:
        raise ArchiveError("the model store holds none of the archives that its index lists; run: make archive")
    return settled, chosen
