"""A service with ``FASHION_STORE_KEY`` loads only archives of an index that one of its keys verifies."""

from __future__ import annotations

import requests

from models import index_writer
from serving.store import index
from tests.support import packing, signing_keys

QUICK = ("--grace", "0.5")


def test_only_a_signed_index_is_used_by_starts_and_rollouts(place, tmp_path):
    store, keys = place.settings.model_store, tmp_path / "store.pub"
    for name in ("old", "new"):
        signing_keys.write(tmp_path, name)

    def public(*names):
        keys.write_text("".join((tmp_path / f"{name}.pub").read_text() for name in names))

    def sign(name):
        index_writer.sign(store, index_writer.private_key(tmp_path / f"{name}.key"))

    def run(*command):
        return place.run(*command, FASHION_STORE_KEY=str(keys))

    def refused(reason, *command):
        result = run(*command)
        assert (result.returncode, result.stderr[:7], result.stderr.count("\n")) == (1, "error: ", 1), result.stderr
        assert reason in result.stderr

    public("old")
    path = packing.pack(store)
    refused("is not signed", "start")
    sign("new")
    refused("does not verify", "start")
    sign("old")
    content = (store / index.NAME).read_bytes()
    (store / index.NAME).write_bytes(content.replace(b"0.5", b"0.4"))
    refused("does not verify", "start")
    (store / index.NAME).write_bytes(content)
    archive = path.read_bytes()
    path.write_bytes(archive[:-1])
    refused("is not what was packed", "start")
    path.write_bytes(archive)
    assert run("start").returncode == 0

    # A rollout reads the index and the keys again, in the supervisor.
    packing.pack(store, version="1.1")
    refused("does not verify", "deploy", "tiny", "1.1", *QUICK)
    # While the key changes, the file holds both.
    sign("new")
    refused("does not verify", "deploy", "tiny", "1.1", *QUICK)
    public("old", "new")
    deployed = run("deploy", "tiny", "1.1", *QUICK)
    assert deployed.returncode == 0, deployed.stderr
    public("new")
    assert run("restart").returncode == 0
    answer = requests.post(f"{place.inference}/predictions/tiny", json=[1, 2, 3], timeout=10)
    assert answer.headers["X-Model-Version"] == "1.1"

    # So does a restart of TorchServe alone: a service stays as it is, and a changed index stops it from loading more.
    public("old")
    refused("does not verify", "restart")
    assert requests.get(f"{place.gateway}/readyz", timeout=10).status_code == 200
