"""TorchServe's tokens, read from the file to which the frontend writes them."""

from __future__ import annotations

import json
import os

import pytest

from serving import settings
from serving.errors import TokenError, UnreachableError
from serving.torchserve import management, tokens


def _write(path, **keys):
    path.write_text(json.dumps({kind: {"key": key} for kind, key in keys.items()}))


def test_keys_are_read_again_when_the_file_has_changed(tmp_path):
    path = tmp_path / "key_file.json"
    _write(path, management="m1", inference="i1", API="a1")
    assert (tokens.key(path, "management"), tokens.key(path, "inference")) == ("m1", "i1")
    before = path.stat().st_mtime_ns
    _write(path, management="m2", inference="i2", API="a2")
    os.utime(path, ns=(before + 1, before + 1))
    assert (tokens.key(path, "management"), tokens.key(path, "inference")) == ("m2", "i2")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"management": "key"}'], ids=str)
def test_a_file_without_keys_is_an_error(tmp_path, text):
    path = tmp_path / "key_file.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TokenError, match=r"key_file\.json has no management key .*FASHION_TOKENS=1"):
        tokens.key(path, "management")


def test_only_a_service_with_tokens_has_keys(tmp_path):
    assert tokens.headers(settings.read({}), "inference")() == {}
    guarded = settings.read({"FASHION_TOKENS": "1", "FASHION_RUN_DIR": str(tmp_path)})
    assert guarded.key_file == tmp_path / "key_file.json"
    _write(guarded.key_file, management="m", inference="i", API="a")
    assert tokens.headers(guarded, "inference")() == {"Authorization": "Bearer i"}


def test_the_management_api_without_its_key_is_unreachable(tmp_path):
    guarded = settings.read({"FASHION_TOKENS": "1", "FASHION_RUN_DIR": str(tmp_path)})
    with pytest.raises(UnreachableError, match="has no management key"):
        management.of_service(guarded).models()
