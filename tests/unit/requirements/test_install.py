"""The installation of packages: progress, log, and error messages. A script stands in for pip."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys

import pytest

from requirements import install
from serving.settings import ROOT


@pytest.fixture
def environment(tmp_path):
    """A function that creates an environment whose Python prints some output, sleeps, and exits with a code."""

    def make(printed: str, code: int = 0, seconds: float = 0.0):
        python = tmp_path / "env" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/words'\ncat <<'END'\n{printed}\nEND\nsleep {seconds}\nexit {code}\n"
        )
        python.chmod(0o755)
        (python.parent / "pip").touch()
        return tmp_path / "env"

    return make


def test_the_screen_shows_one_line_and_the_log_everything(environment, tmp_path, capsys):
    printed = "Collecting torch==2.13.0\n  Downloading it\nCollecting numpy\nInstalling collected packages: a, b, c"
    folder = environment(printed)
    assert install.install(folder, ["-r", "some.txt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Installing packages into {folder}, with pip's output in {folder}/install.log"
    assert lines[1].startswith("3 packages installed in ")
    assert len(lines) == 2
    assert (folder / "install.log").read_text() == f"{printed}\n"
    assert (tmp_path / "words").read_text().split()[:3] == ["-m", "pip", "install"]
    assert (tmp_path / "words").read_text().endswith("-r some.txt\n")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (None, ["download torch==", "install --no-index torch.txt", "install cuda.txt", "install dev.txt"]),
        ("9.9+cpu", ["download torch==", "install --no-index torch.txt", "install dev.txt"]),
        ("{version}", ["install cuda.txt", "install dev.txt"]),
        ("{version}+cpu", ["install dev.txt"]),
    ],
    ids=["nothing", "another version", "with CUDA", "CPU"],
)
def test_torch_is_the_build_that_pip_chooses_and_verified(environment, tmp_path, installed, expected):
    folder = environment("")
    if installed:
        version = (install._LOCKED / "torch.txt").read_text().split("torch==")[1].split()[0]
        packages = folder / "lib" / "python3.11" / "site-packages"
        (packages / f"torch-{installed.format(version=version)}.dist-info").mkdir(parents=True)
    assert install.install(folder, ["--torch", "-r", "dev.txt"]) == 0
    commands = [line.split() for line in (tmp_path / "words").read_text().splitlines()]
    assert len(commands) == len(expected)
    for command, words in zip(commands, expected, strict=True):
        assert all(any(word in actual for actual in command) for word in words.split()), command
        assert ("--require-hashes" in command) == ("torch.txt" in words or "cuda.txt" in words)


def test_a_failure_shows_pips_reason_and_the_log(environment, capsys):
    folder = environment("Collecting torch\nERROR: No matching distribution found for torch==2.13.0", 1)
    assert install.install(folder, ["torch"]) == 1
    error = capsys.readouterr().err
    assert f"pip's output is in {folder}/install.log" in error
    assert error.endswith("ERROR: No matching distribution found for torch==2.13.0\n")


def test_a_failed_build_shows_the_error_of_its_own_pip(environment, capsys):
    folder = environment("error: subprocess-exited-with-error\n  ERROR: No disk\n\nnote: not a problem with pip", 1)
    assert install.install(folder, ["torch"]) == 1
    assert capsys.readouterr().err.endswith("install.log\nERROR: No disk\n")


def test_a_failure_without_a_line_of_pips_errors_shows_the_last_lines(environment, capsys):
    folder = environment("Collecting torch\nTraceback\nMemoryError", 1)
    assert install.install(folder, ["torch"]) == 1
    assert capsys.readouterr().err.endswith("Collecting torch\nTraceback\nMemoryError\n")


def test_nothing_to_install_is_reported(environment, capsys):
    folder = environment("Requirement already satisfied: idna in /somewhere (3.20)")
    assert install.install(folder, ["idna"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing to install in ")


def test_a_terminal_shows_progress_while_pip_is_silent(environment, monkeypatch, capsys):
    monkeypatch.setattr(install, "_REFRESH_S", 0.05)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    folder = environment("Collecting torch==2.13.0", seconds=0.5)
    assert install.install(folder, ["torch"]) == 0
    assert capsys.readouterr().out.count("\r\x1b[KLooking up and downloading packages: 1 (torch) ") > 2


def test_without_a_terminal_the_lines_of_progress_stay_few(environment, monkeypatch, capsys):
    monkeypatch.setattr(install, "_REFRESH_S", 0.02)
    monkeypatch.setattr(install, "_FIRST_LINE_S", 0.1)
    folder = environment("Collecting torch==2.13.0", seconds=1.0)
    assert install.install(folder, ["torch"]) == 0
    # After 0.1 and 0.5 s.
    assert capsys.readouterr().out.count("Looking up and downloading packages: 1 (torch) ") == 2


def test_progress_counts_what_pip_has_installed_since_it_began(tmp_path):
    for name in ("a-1.dist-info", "b-2.dist-info", "c-3.dist-info"):
        (tmp_path / "lib" / "python3.11" / "site-packages" / name).mkdir(parents=True)
    begun = 1000.0
    os.utime(tmp_path / "lib" / "python3.11" / "site-packages" / "a-1.dist-info", (begun - 1, begun - 1))
    installed = install._installed(tmp_path, begun)
    assert install._step("Collecting b\nInstalling collected packages: b, c, d\n", installed) == (
        "Installing packages: 2 of 3"
    )


def test_an_environment_without_pip_is_created_again(environment, tmp_path, capsys):
    folder = environment("")
    (folder / "bin" / "pip").unlink()
    (folder / "pyvenv.cfg").mkdir()
    assert install.install(folder, ["torch"]) == 1
    assert f"the virtual environment {folder} could not be created" in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


def test_an_old_python_can_parse_the_script():
    path = ROOT / "requirements" / "install.py"
    ast.parse(path.read_text(), feature_version=(3, 7))


def test_an_environment_that_cannot_be_created_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert install.install(tmp_path / "file", ["torch"]) == 1
    assert f"the virtual environment {tmp_path}/file could not be created" in capsys.readouterr().err


@pytest.mark.parametrize(
    "version", [(3, 9), (install.NEWEST[0], install.NEWEST[1] + 1), (2, 7)], ids=["older", "newer", "Python 2"]
)
def test_an_unsupported_python_is_refused_with_the_supported_versions(version):
    reason = install.unusable(version)
    assert reason is not None
    newest = ".".join(map(str, install.NEWEST))
    assert f"must be Python 3.10 to {newest}, is {version[0]}.{version[1]};" in reason
    assert "PYTHON=" in reason


def test_this_python_is_supported():
    assert install.unusable(sys.version_info[:2]) is None


def test_a_python_without_venv_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    reason = install.unusable((3, 11))
    assert reason is not None
    assert "apt-get install python3-venv" in reason


def test_the_readme_and_the_projects_name_the_same_versions():
    page = (ROOT / "README.md").read_text()
    newest = ".".join(map(str, install.NEWEST))
    assert f"Python 3.10 to {newest}" in page
    for project in ("pyproject.toml", "client/pyproject.toml"):
        assert 'requires-python = ">=3.10' in (ROOT / project).read_text()
