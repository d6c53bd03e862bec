"""docs/your-own-network.md, step by step: its files, its commands and what they print."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from serving.settings import ROOT, read
from tests.support import packing
from tests.support.place import make_place

PAGE = (ROOT / "docs" / "your-own-network.md").read_text()
ADDRESS = read({}).gateway.url
# A file that the reader writes, another block of Python, or commands with their output.
BLOCK = re.compile(
    r"Write `(?P<file>own/\w+\.py)`:\n\n```python\n(?P<content>.*?)^```"
    r"|^```python\n(?P<code>.*?)^```"
    r"|^```console\n(?P<console>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
# What `make` runs, with the tests' own Python and settings.
MAKE = {"archive": "models archive", "deploy": "serving deploy"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A running service with another model, in whose folder the reader's files are written."""
    folder = tmp_path_factory.mktemp("page")
    packing.pack(folder / "model_store")
    place = make_place(folder, folder / "model_store")
    # Threads that wait for each other would make the training slow on a busy machine.
    variables = {"FASHION_ARTIFACTS_DIR": str(folder / "artifacts"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    place.environment.update(variables)
    (folder / "own").mkdir()
    place.start()
    yield place
    place.end()


def run(place, command):
    ran = subprocess.run(
        command,
        cwd=place.settings.model_store.parent,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def steps(console):
    """Each command, and the pattern of its output, if the page shows it."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        split = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part, re.DOTALL)
        assert split
        command, output = split.groups()
        yield command, ".*".join(map(re.escape, output.split("…"))) if output else None


def runnable(command, place):
    """The command with the tests' Python and addresses."""
    command = command.replace(".venv/bin/python", sys.executable).replace(ADDRESS, place.gateway)
    made = re.fullmatch(r"make (\w+) MODEL=(\w+)(?: VERSION=([\d.]+))?", command)
    return f"{sys.executable} -m {MAKE[made[1]]} {made[2]} {made[3] or ''}" if made else command


def test_the_page_has_worked_examples():
    assert [match["file"] for match in BLOCK.finditer(PAGE) if match["file"]] == [
        "own/shapes.py",
        "own/diabetes.py",
        "own/digits.py",
        "own/pitch_steps.py",
        "own/pitch.py",
    ]


@pytest.mark.parametrize(
    "section", re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:], ids=lambda text: text.partition("\n")[0]
)
def test_the_examples_of_a_section_work(place, section):
    for block in BLOCK.finditer(section):
        if block["file"]:
            (place.settings.model_store.parent / block["file"]).write_text(block["content"])
        elif block["code"]:
            shown = run(place, [sys.executable, "-c", block["code"].replace(ADDRESS, place.gateway)])
            assert re.fullmatch(r"[0-9] [0-9]\n", shown), shown
        else:
            for command, pattern in steps(block["console"]):
                shown = run(place, ["bash", "-c", runnable(command, place)])
                assert pattern is None or re.fullmatch(pattern, shown.rstrip("\n") + "\n"), shown
