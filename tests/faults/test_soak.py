"""Hours in small: both image models, in every form, at half of what can be answered."""

from __future__ import annotations

import os
import statistics
import time

import psutil

from serving import settings
from tests.support import scenes
from tests.support.place import make_place

# Seconds: of the whole, and of what does not count, as caches and heaps still fill.
SECONDS = float(os.environ.get("CHAOS_SOAK", "600")) if scenes.FULL else 6.0
WARM_UP = min(120.0, SECONDS / 2)
# What memory may grow by, and the p99 differ by.
GROWTH = 0.02
STEADY = 0.20


def _family(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def test_soak(tmp_path):
    store = settings.read().model_store
    archives = [
        scenes.variant(store / f"{model}.mar", tmp_path / "model_store", workers=1)
        for model in ("fashion_mlp", "fashion_convnet")
    ]
    place = make_place(tmp_path, tmp_path / "model_store")
    place.start()
    try:
        forms = ["--form", "all"]
        half = scenes.capacity(place.gateway, archives, tmp_path, *forms) / 2 if scenes.FULL else 100.0
        scene = scenes.Scene(place, archives, tmp_path, half, 0)
        pids = place.state()["processes"]
        load = scene.load(SECONDS, *forms)
        begun, samples = time.time(), list[tuple[float, dict[str, int]]]()
        while load.running:
            samples.append((time.time() - begun, {name: _family(pid) for name, pid in pids.items()}))
            time.sleep(0.5)
        result = load.result()
    finally:
        place.end()
    counted = [memory for at, memory in samples if WARM_UP <= at <= SECONDS]
    tenth = max(1, len(counted) // 10)

    def middle(part: list[dict[str, int]]) -> float:
        return statistics.median(sum(memory.values()) for memory in part)

    growth = middle(counted[-tenth:]) / middle(counted[:tenth]) - 1
    warm = [
        entry["latency_ms"]["p99"]
        for place_, entry in enumerate(result["series"])
        if entry["latency_ms"] and WARM_UP <= place_ * result["interval"] <= SECONDS - result["interval"]
    ]
    half_way = len(warm) // 2
    early, late = statistics.median(warm[:half_way]), statistics.median(warm[half_way:])
    scenes.keep(
        "soak",
        f"{SECONDS / 60:.0f} minutes, two models, every form",
        result,
        growth_percent=round(100 * growth, 2),
        p99_ms={"first half": early, "second half": late},
        memory_mb={name: [round(each[name] / 2**20, 1) for each in (counted[0], counted[-1])] for name in pids},
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert growth < GROWTH
        # Java still compiles in the first half, so that p99 may well fall.
        assert late / early - 1 < STEADY
