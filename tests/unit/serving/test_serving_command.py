"""The command line of the service, where nothing runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from handlers.signature import Input
from serving import __main__ as command
from serving import settings
from serving.store import archives
from tests.support import packing


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert settings.described() in capsys.readouterr().out


@pytest.fixture
def image_archive(tmp_path):
    """An archive whose signature says that it takes images."""
    taken = Input(kind="image", name="image", shape=(28, 28), network_shape=(784,))
    described = dataclasses.replace(packing.signature("pictures", "1.0"), input=taken).to_json()
    return archives.read(
        packing.pack(tmp_path, "pictures", changes={"signature.json": described.encode(), "golden.npz": None})
    )


def test_example_prefers_an_image_model_and_its_path_fits_the_folder(tmp_path, image_archive, monkeypatch):
    vector = archives.read(packing.pack(tmp_path))
    given = settings.read({})
    monkeypatch.chdir(settings.ROOT)
    line = command.example_command(given, [vector, image_archive])
    assert f"{given.gateway_url}/predictions/pictures" in line
    assert "@examples/ankle_boot.png" in line
    monkeypatch.chdir(tmp_path)
    (path,) = [
        word.removeprefix("@") for word in command.example_command(given, [image_archive]).split() if "@" in word
    ]
    assert Path(path).is_file()


@pytest.mark.parametrize("changes", [{"api_keys": Path("keys")}, {"certificates": Path("keys")}], ids=["keys", "TLS"])
def test_example_works_as_printed_whatever_the_gateway_asks_for(changes, image_archive):
    given = dataclasses.replace(settings.read({}), **changes)
    assert f"{given.inference.url}/predictions/pictures" in command.example_command(given, [image_archive])


def test_unusable_setting_is_one_line_without_traceback(capsys, monkeypatch):
    monkeypatch.setenv("FASHION_GRPC_PORT", "none")
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    assert command.main(["status"]) == 1
    assert capsys.readouterr().err.startswith("error: FASHION_GRPC_PORT='none'")
