"""The steps of the GPU measurement, run on the processor."""

import subprocess
import sys
import time

import pytest
import torch

from bench import gpu
from models import catalog
from serving.settings import ROOT


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_measurement_fails_with_one_line():
    result = subprocess.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: torch finds no CUDA device")
    assert "Traceback" not in result.stderr


def test_bulk_measures_every_batch_size():
    rows = gpu.bulk(catalog.get("fashion_mlp"), torch.device("cpu"), (1, 16), 0.05)
    assert [row["batch"] for row in rows] == [1, 16]
    for row in rows:
        assert row["torch"] > 0
        assert row["torch, pixels to probabilities"] > 0


def test_a_rate_is_in_steps_per_second(monkeypatch):
    now = 0.0

    def step():
        nonlocal now
        now += 0.25

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert gpu.rate(step, torch.device("cpu"), 100.0) == pytest.approx(4.0)
