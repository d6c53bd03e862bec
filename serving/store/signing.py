"""The signature of the model store's index, ``index.json.sig``: 64 bytes, Ed25519, of the bytes of ``index.json``.

``models/index_writer.py`` writes it with a private key. With ``FASHION_STORE_KEY``, a file of one or more public keys,
the service uses an index only if one of these keys verifies it. Several keys let the private key change:
docs/security.md has the steps. ``openssl`` writes and reads the same files.
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from serving.errors import ArchiveError, SettingError

# Added to the index's file name.
SUFFIX = ".sig"
_VARIABLE = "FASHION_STORE_KEY"
_KEY = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """The keys in a file of one or more PEM blocks.

    Raises:
        SettingError: the file cannot be read, or holds anything but Ed25519 public keys, or none.
    """
    try:
        keys = [load_pem_public_key(block) for block in _KEY.findall(path.read_bytes())]
    except OSError as error:
        raise SettingError(f"{_VARIABLE}: {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingError(f"{_VARIABLE}: {path} holds a block that is not a public key in PEM: {error}") from error
    ed25519 = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not keys or len(ed25519) < len(keys):
        raise SettingError(
            f"{_VARIABLE}: {path} must hold Ed25519 public keys in PEM, got {len(ed25519)} among {len(keys)} keys; "
            "write one with: openssl pkey -in PRIVATE_KEY -pubout"
        )
    return ed25519


def verify(path: Path, content: bytes, keys: Path) -> None:
    """Check the signature of an index.

    Args:
        path: the index; its signature is beside it.
        content: the bytes of the index that will be used.
        keys: the file of public keys.

    Raises:
        ArchiveError: the signature is missing, or none of the keys verifies it.
        SettingError: the file of keys cannot be used.
    """
    known = public_keys(keys)
    signature_path = path.with_name(path.name + SUFFIX)
    remedy = "run: make archive SIGN=PRIVATE_KEY"
    try:
        signature = signature_path.read_bytes()
    except FileNotFoundError:
        raise ArchiveError(f"{path} is not signed, but {_VARIABLE} requires it; {remedy}") from None
    except OSError as error:
        raise ArchiveError(f"{signature_path} cannot be read: {error.strerror or error}") from error
    if not any(_verifies(key, signature, content) for key in known):
        raise ArchiveError(
            f"{signature_path} does not verify {path.name} with any of the {len(known)} keys in {keys}: the index was "
            f"changed, or signed with another key; check where its archives are from, then {remedy}"
        )


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
