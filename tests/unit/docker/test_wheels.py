"""``docker/wheels.sh``, with a stand-in for pip that records its arguments instead of downloading gigabytes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from serving.settings import ROOT

PYTHON = """#!/bin/sh
case "$*" in
*"pip download"*) echo "$@" >>{log}; {fetch} ;;
*) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def fill(tmp_path):
    """Fills a wheelhouse; returns the finished process and the arguments of each call of pip."""

    def fill(device: str, fetch: str = "true") -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        for folder in ("docker", "requirements"):
            shutil.copytree(ROOT / folder, tmp_path / folder, dirs_exist_ok=True)
        log, python = tmp_path / "log", tmp_path / "python"
        log.write_text("")
        python.write_text(PYTHON.format(log=log, fetch=fetch, python=sys.executable))
        python.chmod(0o755)
        command = [tmp_path / "docker" / "wheels.sh", device]
        result = subprocess.run(
            command, env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        return result, [line.split() for line in log.read_text().splitlines()]

    return fill


def test_every_accepted_glibc_version_is_named(fill):
    # pip does not accept wheels for older versions by itself; NCCL's wheels are for 2.18 only.
    result, calls = fill("gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    for minor in range(5, 29):
        assert all(any(word.startswith(f"manylinux_2_{minor}_") for word in arguments) for arguments in calls)
    assert {"requirements/locked/service.txt", "requirements/locked/cuda.txt"} <= set(calls[-1])
    # A complete wheelhouse is not filled again.
    assert fill("gpu")[1] == []


def test_a_gpu_wheelhouse_without_cuda_is_an_error(fill):
    result, _ = fill("gpu", "touch wheelhouse/gpu/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert result.returncode == 1
    assert "without CUDA" in result.stderr


def test_the_build_of_torch_is_chosen_first_and_separately_and_then_verified(fill):
    result, calls = fill("cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ["--require-hashes" in call for call in calls] == [False, True, True]
    assert calls[0][-1].startswith("torch==")
    assert "--extra-index-url" in calls[0]
    assert {"--no-index", "requirements/locked/torch.txt"} <= set(calls[1])
    assert "requirements/locked/cuda.txt" not in calls[2]


def test_other_devices_are_refused(fill):
    result, calls = fill("tpu")
    assert (result.returncode, calls) == (2, [])
    assert "usage: " in result.stderr
