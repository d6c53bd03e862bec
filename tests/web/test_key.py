"""A service that requires a key: the page asks for it once, and then works as usual."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from serving import settings
from tests.support.place import Place, make_place
from tests.support.playground import SAMPLES

KEY = secrets.token_hex(32)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Place]:
    """A service with one model and one key."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "model_store").mkdir()
    for name in ("fashion_mlp.mar", "index.json"):
        shutil.copy(settings.read().model_store / name, folder / "model_store")
    keys = folder / "keys"
    keys.write_text(f"{KEY} somebody;\n")
    keys.chmod(0o600)
    place = make_place(folder, folder / "model_store")
    started = place.run("start", FASHION_API_KEYS=str(keys))
    assert started.returncode == 0, started.stdout + started.stderr
    yield place
    place.end()


def test_page_asks_for_the_key_and_keeps_it_for_the_tab(guarded, open_playground, tmp_path):
    playground = open_playground(site=guarded.gateway, expected=(401, 403))
    page = playground.page
    field = page.get_by_label("API key")
    for key, message in (("0" * 64, "Unknown API key."), (KEY, None)):
        expect(field).to_be_visible()
        field.fill(key)
        page.get_by_role("button", name="Use this key").click()
        if message:
            expect(page.locator("#key")).to_contain_text(message)
    expect(field).to_be_hidden()
    verdict = playground.card("fashion_mlp").locator(".verdict strong")
    expect(verdict).to_be_visible()

    page.reload()
    expect(verdict).to_be_visible()
    expect(field).to_be_hidden()

    # The code reads the key from a variable, so that the page never shows it.
    code = page.locator("#code-text").inner_text()
    assert KEY not in code
    shutil.copy(SAMPLES / "t-shirt-top.png", tmp_path)
    process = subprocess.run(
        ["bash", "-euc", code],
        cwd=tmp_path,
        env={**os.environ, "FASHION_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(process.stdout)["label"] == verdict.inner_text(), process.stderr
