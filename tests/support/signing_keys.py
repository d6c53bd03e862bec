"""Key pairs that sign a model store's index, made as docs/security.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write(folder: Path, name: str, algorithm: str = "Ed25519") -> None:
    """Write the private key ``<name>.key`` and the public key ``<name>.pub``, both PEM, into a folder."""
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
