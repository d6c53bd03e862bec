"""README's "Serve your own network", step by step, in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import requests

from serving.settings import ROOT
from tests.support.place import make_place

COPIED = ("models", "handlers", "serving", "web", "examples", "config.properties")


@pytest.fixture
def copy(tmp_path):
    """A copy of the folders that the steps need, without any built archive."""
    target = tmp_path / "repository"
    target.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)
    return target


def code_block(language: str, first_line: str) -> str:
    """The block of the README that starts with ``first_line``, so that the test runs the reader's own code."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    matching = [block for block in blocks if block.lstrip().startswith(first_line)]
    assert len(matching) == 1, f"README has {len(matching)} blocks that start with {first_line!r}"
    return textwrap.dedent(matching[0])


def test_a_fifth_network_is_served(copy, tmp_path):
    (copy / "models/networks/fashion_linear.py").write_text(code_block("python", '"""Softmax regression'))
    catalog = copy / "models/catalog.py"
    content = catalog.read_text()
    entry = textwrap.indent(code_block("python", "Entry("), " " * 8)
    head, close, tail = content.rpartition("    )\n}\n")
    assert close, "models/catalog.py must end with the last entry and }"
    catalog.write_text(head + entry + close + tail)

    place = make_place(tmp_path, copy / "model_store")
    environment = {name: value for name, value in place.environment.items() if name != "FASHION_ARTIFACTS_DIR"}

    def run(*arguments: str) -> str:
        completed = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    assert "fashion_linear" in run("models", "list")
    run("models", "archive", "fashion_linear", "--train-missing")
    run("serving", "start")
    try:
        with (ROOT / "examples/ankle_boot.png").open("rb") as image:
            answer = requests.post(
                f"{place.inference}/predictions/fashion_linear",
                data=image,
                headers={"Content-Type": "image/png"},
                timeout=30,
            )
        assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == "Ankle boot"
    finally:
        run("serving", "stop")
    assert [path.name for path in (copy / "model_store").glob("*.mar")] == ["fashion_linear.mar"]
