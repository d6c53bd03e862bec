"""Packages are installed with a line of progress and a log, or refused in one message; pip is scripted."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from serving.settings import ROOT

_SPEC = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
install = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(install)


@pytest.fixture
def environment(tmp_path):
    """Makes an environment whose Python prints what pip would, and ends so."""

    def make(printed: str, code: int = 0):
        python = tmp_path / "env" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/asked'\ncat <<'END'\n{printed}\nEND\nexit {code}\n")
        python.chmod(0o755)
        return tmp_path / "env"

    return make


def test_a_screen_shows_one_line_and_the_log_all(environment, tmp_path, capsys):
    printed = "Collecting torch==2.13.0\n  Downloading it\nCollecting numpy\nInstalling collected packages: a, b, c"
    folder = environment(printed)
    assert install.install(folder, ["-r", "some.txt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Installing packages into {folder}, with pip's output in {folder}/install.log"
    assert lines[1].startswith("3 packages in ")
    assert len(lines) == 2
    assert (folder / "install.log").read_text() == f"{printed}\n"
    assert (tmp_path / "asked").read_text().split()[:3] == ["-m", "pip", "install"]
    assert (tmp_path / "asked").read_text().endswith("-r some.txt\n")


def test_a_failure_shows_pips_reason_and_the_log(environment, capsys):
    folder = environment("Collecting torch\nERROR: No matching distribution found for torch==2.13.0", 1)
    assert install.install(folder, ["torch"]) == 1
    error = capsys.readouterr().err
    assert f"all that pip printed is in {folder}/install.log" in error
    assert error.endswith("ERROR: No matching distribution found for torch==2.13.0\n")


def test_an_environment_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert install.install(tmp_path / "file", ["torch"]) == 1
    assert f"the virtual environment {tmp_path}/file was not made" in capsys.readouterr().err


@pytest.mark.parametrize(
    "version", [(3, 9), (install.NEWEST[0], install.NEWEST[1] + 1), (2, 7)], ids=["older", "newer", "Python 2"]
)
def test_another_python_is_refused_with_the_versions_that_will_do(version):
    reason = install.unusable(version)
    assert f"is Python {version[0]}.{version[1]}, and 3.10 to {install.NEWEST[0]}.{install.NEWEST[1]} are" in reason
    assert "PYTHON=" in reason


def test_this_python_will_do():
    assert install.unusable(sys.version_info[:2]) is None


def test_a_python_without_venv_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    assert "apt-get install python3-venv" in install.unusable((3, 11))


def test_one_place_has_the_versions():
    page = (ROOT / "README.md").read_text()
    newest = ".".join(map(str, install.NEWEST))
    assert f"Python 3.10 to {newest}" in page
    for project in ("pyproject.toml", "client/pyproject.toml"):
        assert 'requires-python = ">=3.10' in (ROOT / project).read_text()
