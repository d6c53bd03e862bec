"""The measurement of a GPU, its steps tried on the processor."""

import subprocess
import sys

import pytest
import torch

from bench import gpu
from models import catalog
from serving.settings import ROOT


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to measure")
def test_without_a_gpu_it_says_so():
    ran = subprocess.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: torch finds no CUDA device here")
    assert "Traceback" not in ran.stderr


def test_bulk_counts_images_of_every_batch():
    rows = gpu.bulk(catalog.get("fashion_mlp"), torch.device("cpu"), (1, 16), 0.05)
    assert [row["batch"] for row in rows] == [1, 16]
    for row in rows:
        assert row["torch"] > 0
        assert row["torch, pixels to probabilities"] > 0


def test_a_rate_is_steps_a_second(monkeypatch):
    now = 0.0

    def step():
        nonlocal now
        now += 0.25

    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now)
    assert gpu.rate(step, torch.device("cpu"), 100.0) == pytest.approx(4.0)
