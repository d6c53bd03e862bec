"""``docker/wheels.sh``, with a pip that notes what it is asked for in place of fetching gigabytes."""

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
    """Fills a wheelhouse: the process that has ended, and what pip was asked for."""

    def fill(device: str, fetch: str = "true") -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        for folder in ("docker", "requirements"):
            shutil.copytree(ROOT / folder, tmp_path / folder, dirs_exist_ok=True)
        log, python = tmp_path / "log", tmp_path / "python"
        log.write_text("")
        python.write_text(PYTHON.format(log=log, fetch=fetch, python=sys.executable))
        python.chmod(0o755)
        command = [tmp_path / "docker" / "wheels.sh", device]
        ran = subprocess.run(
            command, env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        return ran, [line.split() for line in log.read_text().splitlines()]

    return fill


def test_every_glibc_that_a_wheel_may_be_built_for_is_named(fill):
    # pip takes none for an older one by itself; NCCL's wheels are for 2.18 alone.
    ran, (asked,) = fill("gpu", "touch wheelhouse/gpu/nvidia_nccl.whl")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for minor in range(5, 29):
        assert any(word.startswith(f"manylinux_2_{minor}_") for word in asked)
    assert "requirements/service.txt" in asked
    # Once is enough.
    assert fill("gpu")[1] == []


def test_build_of_torch_without_cuda_is_no_gpu_wheelhouse(fill):
    ran, _ = fill("gpu")
    assert ran.returncode == 1
    assert "without CUDA" in ran.stderr


def test_torch_for_the_cpu_comes_first_and_alone(fill):
    ran, asked = fill("cpu")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ["--no-deps" in each for each in asked] == [True, False]
    assert asked[0][-1].startswith("torch==")


def test_other_devices_are_told(fill):
    ran, asked = fill("tpu")
    assert (ran.returncode, asked) == (2, [])
    assert "usage: " in ran.stderr
