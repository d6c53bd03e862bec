"""The README's examples work, at the tests' own service instead of port 8000."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from serving.settings import ROOT, read
from tests.support import makefile

README = (ROOT / "README.md").read_text()
ADDRESS = read({}).gateway.url


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


CURL = [line for block in _blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
CURL += [line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ curl ")]


def test_there_are_examples():
    assert len(CURL) == 6
    assert all(ADDRESS in line for line in CURL)


@pytest.mark.parametrize("line", CURL)
def test_a_curl_line_is_answered(gateway, line, tmp_path):
    command = shlex.split(line.replace(ADDRESS, gateway.url).replace("/tmp/", f"{tmp_path}/"))
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    if "--output" in command:
        (written,) = tmp_path.iterdir()
        assert written.read_bytes().startswith(b"\x89PNG")
        return
    answer = json.loads(ran.stdout)
    if "[[1, 2], [3, 4]]" in line:
        assert answer["status"] == 422
        assert answer["detail"]
    elif "image=@" in line:
        assert [one["label"] for one in answer] == ["Ankle boot"] * 2
    elif "blobs_mlp" in line:
        assert answer["label"].startswith("blob")
    else:
        assert answer["label"] == "Ankle boot"
        assert len(answer["probabilities"]) == (3 if "top_k=3" in line else 10)


def test_the_python_example_runs(gateway):
    (code,) = (block for block in _blocks("python") if "requests.post" in block)
    ran = subprocess.run(
        [sys.executable, "-c", code.replace(ADDRESS, gateway.url)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2


def test_every_make_target_in_it_exists():
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README))
    assert {"serve", "test"} <= named <= makefile.targets()


def test_every_page_that_it_links_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
