"""The forge's workflows run the targets of the Makefile, with every Python that the project supports."""

from __future__ import annotations

import re

import pytest
import yaml

from requirements import install
from serving.settings import ROOT
from tests.support import makefile

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def jobs(name):
    return WORKFLOWS[name]["jobs"].values()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_make_command_names_a_target(name):
    called = set()
    for job in jobs(name):
        for step in job["steps"]:
            called |= set(re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE))
        called |= set(job.get("strategy", {}).get("matrix", {}).get("target", []))
    assert called
    assert called <= makefile.targets()


def test_linux_and_macos_test_every_supported_python():
    oldest, newest = install.OLDEST[1], install.NEWEST[1]
    matrix = WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == [f"3.{minor}" for minor in range(oldest, newest + 1)]
    assert [system.split("-")[0] for system in matrix["os"]] == ["ubuntu", "macos"]
    requires = f'requires-python = ">=3.{oldest},<3.{newest + 1}"\n'
    for project in ("pyproject.toml", "client/pyproject.toml"):
        assert requires in (ROOT / project).read_text()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_job_has_a_time_limit_and_may_only_read(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in jobs(name))
