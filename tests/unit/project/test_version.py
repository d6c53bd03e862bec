"""Every file that states the version states that of ``serving/__init__.py``."""

from __future__ import annotations

import os
import re
import subprocess

import yaml

from serving import NAME, VERSION
from serving.settings import ROOT


def _read(path: str) -> str:
    return (ROOT / path).read_text()


def test_the_version_has_three_numbers():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_the_client_has_the_version_of_the_service():
    assert re.findall(r'^version = "(.*)"$', _read("client/pyproject.toml"), re.MULTILINE) == [VERSION]


def test_pyproject_reads_the_version_from_the_package():
    project = _read("pyproject.toml")
    assert 'dynamic = ["version"]' in project
    assert 'version = { attr = "serving.VERSION" }' in project


def test_the_api_document_has_the_version():
    document = yaml.safe_load(_read("web/openapi.yaml"))
    assert document["info"]["version"] == VERSION
    answer = document["paths"]["/v2"]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["example"]["name"] == NAME
    assert answer["example"]["version"] == VERSION


def test_the_newest_release_in_the_changelog_is_the_version():
    releases = re.findall(r"^## \[(\d.*?)\]", _read("CHANGELOG.md"), re.MULTILINE)
    assert releases[0] == VERSION
    assert len(set(releases)) == len(releases)


def test_make_builds_the_image_with_the_version(tmp_path):
    # A docker that prints what compose would read; `make image` runs it first to see whether an engine is there.
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\ncase "$*" in *build*) echo "version=$FASHION_VERSION" ;; esac\n')
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "image", "DEVICE=cpu", "--assume-old", "wheels", "--assume-old", "engine"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"version={VERSION}" in ran.stdout, ran.stdout + ran.stderr
