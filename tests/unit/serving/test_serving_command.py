"""The command line without a running service."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest

from handlers.signature import Input
from serving import __main__ as command
from serving.settings import ROOT, help_text
from serving.settings import read as read_settings
from serving.store import archives
from tests.support import packing


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert help_text() in capsys.readouterr().out


@pytest.fixture
def image_archive(tmp_path):
    """An archive whose signature has an image as input."""
    image = Input(kind="image", name="image", shape=(28, 28), network_shape=(784,))
    described = dataclasses.replace(packing.signature("pictures", "1.0"), input=image).to_json()
    return archives.read(
        packing.pack(tmp_path, "pictures", changes={"signature.json": described.encode(), "golden.npz": None})
    )


def test_example_prefers_an_image_model_and_its_path_fits_the_folder(tmp_path, image_archive, monkeypatch):
    vector = archives.read(packing.pack(tmp_path))
    settings = read_settings({})
    monkeypatch.chdir(ROOT)
    line = command.example_command(settings, [vector, image_archive])
    assert f"{settings.gateway_url}/predictions/pictures" in line
    assert "@examples/ankle_boot.png" in line
    monkeypatch.chdir(tmp_path)
    (path,) = [
        word.removeprefix("@") for word in command.example_command(settings, [image_archive]).split() if "@" in word
    ]
    assert Path(path).is_file()


@pytest.mark.parametrize("changes", [{"api_keys": Path("keys")}, {"certificates": Path("keys")}], ids=["keys", "TLS"])
def test_example_avoids_a_gateway_with_keys_or_tls(changes, image_archive):
    settings = dataclasses.replace(read_settings({}), **changes)
    assert f"{settings.inference.url}/predictions/pictures" in command.example_command(settings, [image_archive])


def test_invalid_setting_is_reported_without_traceback(capsys, monkeypatch):
    monkeypatch.setenv("FASHION_GRPC_PORT", "none")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert command.main(["status"]) == 1
    assert capsys.readouterr().err.startswith("error: FASHION_GRPC_PORT must be a port number")
