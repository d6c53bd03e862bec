"""The images of the versions, which are built once for all engines."""

from __future__ import annotations

from pathlib import Path

from tests.fleet import versions
from tests.fleet.fleet import image
from tests.support.composing import IMAGE, run


def build(name: str, context: Path, *options: str) -> str:
    """Build an image; returns its name."""
    run("docker", "build", "--quiet", "--tag", name, *options, str(context))
    return name


def bake(stores: dict[str, Path]) -> list[str]:
    """Bake one image for each model store; returns their names."""
    for version, store in stores.items():
        lines = [f"FROM {IMAGE}", "COPY index.json *.mar /models/"]
        if version == versions.NEVER_READY:
            # So that the replica ends sooner.
            lines.append("ENV FASHION_START_TIMEOUT=20")
        (store / "Dockerfile").write_text("\n".join(lines) + "\n")
        build(image(version), store)
    return [image(version) for version in stores]
