"""What torch has deprecated of what this project uses: a new warning, or one less, fails the test."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from models import quantizing
from serving.settings import ROOT

# One process does it all, in some 30 s of a core.
pytestmark = pytest.mark.timeout(600)

# The name that docs/leaving.md has, and how the message begins.
INT8 = {
    "`torch.ao.quantization`": "torch.ao.quantization is deprecated and will be removed in 2.10.",
    "`torch.quantize_per_tensor`": "torch.quantize_per_tensor, torch.quantize_per_channel and other quantized tensor",
}
KNOWN = {
    "`torch.jit.script`": "`torch.jit.script` is deprecated.",
    "`torch.jit.save`": "`torch.jit.save` is deprecated.",
    "`torch.jit.load`": "`torch.jit.load` is deprecated.",
    "`torch.jit.freeze`": "`torch.jit.freeze` is deprecated.",
    "`LeafSpec`": "`isinstance(treespec, LeafSpec)` is deprecated,",
    **INT8,
}
# Trains, quantizes and exports the smallest model, and loads it as a worker does. Python's warnings are printed before
# any filter, because some modules hide those of torch; torch prints its own, each time.
PROGRAM = """
import sys, warnings

def warn(message, category=None, *args, **kwargs):
    category = type(message) if isinstance(message, Warning) else category or UserWarning
    if issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        frame, files = sys._getframe(1), []
        while frame:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        if "torch" in str(message) or any("/torch/" in file for file in files):
            print("Deprecated:", " ".join(str(message).split()), flush=True)

warnings.warn = warn

import torch
from handlers.torchscript import optimized
from models import artifacts
from models.__main__ import main

torch.set_warn_always(True)
versions = ["1.0"]
commands = ["train blobs_mlp", "export blobs_mlp --target onnx", "export blobs_mlp --target pt2"]
if sys.argv[1] == "int8":
    versions.append("1.1")
    commands.append("quantize blobs_mlp --version 1.1")
for command in commands:
    assert main(command.split()) == 0, command
for version in versions:
    path = artifacts.folder("blobs_mlp", version) / artifacts.TORCHSCRIPT
    network = optimized(torch.jit.load(path).eval(), torch.device("cpu"))
    assert network(torch.zeros(2, 4)).shape == (2, 3)
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """The deprecations that torch reports, as Python's and as its own warnings."""
    forms = "int8" if quantizing.ENGINE in torch.backends.quantized.supported_engines else "float32"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, forms],
        cwd=ROOT,
        env={**os.environ, "FASHION_ARTIFACTS_DIR": str(tmp_path_factory.mktemp("artifacts"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    own = re.findall(r"Warning: (.*\bdeprecated\b.*)", result.stdout)
    return {*re.findall(r"^Deprecated: (.*)", result.stdout, re.MULTILINE), *own}


def test_torch_deprecates_what_is_known_and_nothing_else(messages):
    expected = KNOWN if quantizing.ENGINE in torch.backends.quantized.supported_engines else KNOWN.keys() - INT8.keys()
    beginnings = {KNOWN[name] for name in expected}
    new = {message for message in messages if not message.startswith(tuple(KNOWN.values()))}
    assert not new, "torch has deprecated more; add it here and to docs/leaving.md"
    gone = {start for start in beginnings if not any(message.startswith(start) for message in messages)}
    assert not gone, "torch no longer warns; remove it here and from docs/leaving.md"


def test_the_page_about_leaving_names_them():
    page = (ROOT / "docs" / "leaving.md").read_text()
    assert [name for name in KNOWN if name not in page] == []
