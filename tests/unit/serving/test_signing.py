"""The signature of the model store's index: made by ``models/index_writer.py``, verified before the index is used."""

from __future__ import annotations

import subprocess

import pytest

from models import index_writer
from models.__main__ import main
from models.errors import SigningError
from serving.errors import ArchiveError, SettingError
from serving.store import archives, index, signing
from tests.support import packing, signing_keys


@pytest.fixture
def store(tmp_path):
    """A model store with one archive and a signed index; ``first.key`` signed it, ``second.key`` did not."""
    for name in ("first", "second"):
        signing_keys.write(tmp_path, name)
    packing.pack(tmp_path / "store")
    index_writer.sign(tmp_path / "store", index_writer.private_key(tmp_path / "first.key"))
    return tmp_path / "store"


def _public(store, *names):
    """A file with the public keys of these names."""
    path = store.parent / "public.pem"
    path.write_text("".join((store.parent / f"{name}.pub").read_text() for name in names))
    return path


@pytest.mark.parametrize("names", [("first",), ("second", "first"), ("first", "second")], ids="+".join)
def test_a_signed_index_is_read_with_any_of_the_keys(store, names):
    (entry,) = index.read(store, _public(store, *names))
    assert archives.read_listed(entry).model == "tiny"


def test_openssl_verifies_the_signature(store):
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", _public(store, "first")]
    files = ["-in", store / index.NAME, "-sigfile", store / "index.json.sig"]
    assert subprocess.run([*command, *files]).returncode == 0


def test_an_index_without_signature_is_read_only_without_a_key(store):
    (store / "index.json.sig").unlink()
    assert len(index.read(store, None)) == 1
    with pytest.raises(ArchiveError, match=r"index\.json is not signed, but FASHION_STORE_KEY .* SIGN="):
        index.read(store, _public(store, "first"))


def _change(store):
    path = store / index.NAME
    path.write_text(path.read_text().replace("0.5", "0.4"))


def _list_another(store):
    packing.pack(store, "tiny", "1.1")


def _cut_signature(store):
    path = store / "index.json.sig"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("change", [_change, _list_another, _cut_signature])
def test_an_index_that_was_changed_after_it_was_signed_is_refused(store, change):
    change(store)
    with pytest.raises(ArchiveError, match=r"does not verify index\.json with any of the 1 keys .* SIGN="):
        index.read(store, _public(store, "first"))


def test_a_signature_by_another_key_is_refused(store):
    with pytest.raises(ArchiveError, match="does not verify"):
        index.read(store, _public(store, "second"))


def test_the_digests_in_a_signed_index_cover_the_archives(store):
    path = store / "tiny.mar"
    path.write_bytes(path.read_bytes() + b"\0")
    (entry,) = index.read(store, _public(store, "first"))
    with pytest.raises(ArchiveError, match="is not what was packed"):
        archives.read_listed(entry)


def test_a_signature_is_replaced_after_a_change(store):
    _list_another(store)
    index_writer.sign(store, index_writer.private_key(store.parent / "second.key"))
    assert len(index.read(store, _public(store, "second"))) == 2
    assert not list(store.glob(".index.json*.new"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "got 0 among 0 keys"),
        ("text", "got 0 among 0 keys"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key in PEM"),
        ("{first.key}", "not a public key in PEM"),
        ("{first.pub}{other.pub}", "got 1 among 2 keys"),
    ],
    ids=["empty", "text", "damaged", "private", "another algorithm"],
)
def test_a_file_without_ed25519_public_keys_is_refused(store, content, reason):
    folder = store.parent
    signing_keys.write(folder, "other", "X25519")
    for name in ("first.key", "first.pub", "other.pub"):
        content = content.replace(f"{{{name}}}", (folder / name).read_text())
    path = folder / "public.pem"
    path.write_text(content)
    with pytest.raises(SettingError, match=rf"FASHION_STORE_KEY: {path} .*{reason}"):
        index.read(store, path)


def test_a_missing_file_of_keys_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"FASHION_STORE_KEY: .*gone\.pub cannot be read: No such file"):
        signing.public_keys(tmp_path / "gone.pub")


def test_a_key_that_cannot_sign_is_refused(tmp_path):
    signing_keys.write(tmp_path, "first")
    signing_keys.write(tmp_path, "other", "X25519")
    command = ["openssl", "pkey", "-in", tmp_path / "first.key", "-aes256", "-passout", "pass:x", "-out"]
    subprocess.run([*command, tmp_path / "locked.key"], check=True)
    for name, reason in (
        ("gone.key", "cannot be read: No such file"),
        ("first.pub", "is not a private key in PEM without a password"),
        ("locked.key", "is not a private key in PEM without a password"),
        ("other.key", "must hold an Ed25519 key; .*openssl genpkey"),
    ):
        with pytest.raises(SigningError, match=f"{name} {reason}"):
            index_writer.private_key(tmp_path / name)


def test_a_bad_key_is_reported_before_anything_is_packed(tmp_path, capsys):
    assert main(["archive", "blobs_mlp", "--sign", str(tmp_path / "gone.key")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/gone.key cannot be read: No such file or directory\n"
