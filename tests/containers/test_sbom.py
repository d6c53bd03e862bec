"""``make sbom`` lists all packages, as the schema of CycloneDX requires."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import distributions
from urllib.parse import unquote

import pytest

from serving.settings import ROOT
from tests.support.composing import IMAGE, run

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = sys.stdin.read()
version = SchemaVersion.from_version(sys.argv[1])
sys.exit(str(JsonStrictValidator(version).validate_str(text) or "") or None)
"""


@pytest.fixture(scope="module")
def written():
    """The folder of the lists, written anew."""
    run("make", "--silent", "sbom")
    return ROOT / "sbom"


def _name(package):
    """A package's name, as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _packages(path, kind):
    """Name and version of the listed packages of a kind: pypi, or deb/debian without its sources."""
    document = json.loads(path.read_text())
    purls = [component["purl"] for component in document["components"] if "purl" in component]
    matches = [re.match(rf"pkg:{kind}/([^@]+)@([^?]+)", unquote(purl)) for purl in purls if "arch=source" not in purl]
    return {(match[1], match[2]) for match in matches if match}


def _inside(entrypoint, *arguments):
    return run("docker", "run", "--rm", "--network=none", "--entrypoint", entrypoint, IMAGE, *arguments)


def test_the_lists_are_valid(written):
    files = list(written.glob("*.cdx.json"))
    assert {"environment.cdx.json", f"image-{IMAGE.split(':')[1]}.cdx.json"} <= {path.name for path in files}
    for path in files:
        version = json.loads(path.read_text())["specVersion"]
        command = [str(ROOT / ".venv-sbom/bin/python"), "-c", VALIDATE, version]
        result = subprocess.run(command, input=path.read_text(), capture_output=True, text=True)
        assert result.returncode == 0, f"{path}: {result.stderr}"


def test_the_list_of_the_environment_is_complete(written):
    listed = {(_name(name), version) for name, version in _packages(written / "environment.cdx.json", "pypi")}
    installed = {(_name(each.metadata["Name"]), each.version) for each in distributions()}
    # A folder has no address of a package.
    assert listed == {(name, version) for name, version in installed if name != "fashion-client"}


def test_the_list_of_the_image_has_debians_and_pythons_packages(written):
    path = written / f"image-{IMAGE.split(':')[1]}.cdx.json"
    debian = set(_inside("dpkg-query", "--show", "--showformat=${Package}\n").split())
    assert {name for name, _ in _packages(path, "deb/debian")} == debian
    assert {"nginx-light", "python3", "tini"} <= debian
    names = "from importlib.metadata import distributions as d; print(*(each.metadata['Name'] for each in d()))"
    python = {_name(name) for name in _inside("python", "-c", names).split()}
    assert {_name(name) for name, _ in _packages(path, "pypi")} == python
    assert {"torch", "torchserve"} <= python
