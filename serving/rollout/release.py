"""A release: one accepted version of each model, alone in a folder, for an image of a fleet.

    python -m serving.rollout.release FOLDER VERSION [MODEL]     run by docker/fleet_image.sh

Without MODEL, every model has this version. With it, only that model does; the others have their highest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.errors import RolloutError, ServingError
from serving.rollout import steps
from serving.settings import read as read_settings
from serving.store import index
from serving.store.index import Listed


def write(store: Path, keys: Path | None, folder: Path, version: str, model: str | None = None) -> list[Listed]:
    """Check the archives of a release, and copy them into an empty folder with an index of their own.

    That index has no signature. A fleet trusts the digest of the image.

    Args:
        store: the model store.
        keys: the file of public keys, one of which must verify the store's index; ``None`` for any index.
        folder: an existing folder without files.
        version: of ``model``, or of every model.
        model: ``None`` for every model.

    Returns:
        The entries of the release, sorted by model.

    Raises:
        ServingError: a version is missing or not accepted; the message names it.
    """
    listed = index.read(store, keys)
    # Sorted by version, so the highest of each model is last.
    chosen = {entry.model: entry for entry in listed}
    for name in [model] if model else list(chosen):
        matching = [entry for entry in listed if (entry.model, entry.version) == (name, version)]
        if not matching:
            raise RolloutError(
                f"{store / index.NAME} does not list {name} {version}; run: make archive MODEL={name} VERSION={version}"
            )
        chosen[name] = matching[0]
    # From the entries, because the file may have changed since its signature was verified.
    contents = {}
    for entry in chosen.values():
        steps.accepted(entry)
        shutil.copyfile(entry.path, folder / entry.path.name)
        contents[entry.path.name] = {name: value for name, value in vars(entry).items() if name != "path"}
    (folder / index.NAME).write_text(json.dumps(contents, indent=2) + "\n")
    return list(chosen.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.rollout.release", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("version")
    parser.add_argument("model", nargs="?")
    arguments = parser.parse_args(argv)
    try:
        settings = read_settings()
        source = (settings.model_store, settings.store_key)
        entries = write(*source, arguments.folder, arguments.version, arguments.model)
    except (ServingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{entry.model} {entry.version}" for entry in entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
