"""A soak test: both image models, all request forms, half of the capacity."""

from __future__ import annotations

import os
import statistics
import time

import psutil

from serving import settings
from tests.support import scenes
from tests.support.place import make_place

# The duration, and the part at its beginning that does not count, because caches and heaps still fill.
DURATION_S = float(os.environ.get("CHAOS_SOAK", "600")) if scenes.FULL else 6.0
WARM_UP_S = min(120.0, DURATION_S / 2)
# Limits for the growth of the memory, and for the growth of the p99 from the first half to the second.
MEMORY_GROWTH_LIMIT = 0.02
P99_GROWTH_LIMIT = 0.20


def _memory(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def test_memory_and_latency_stay_the_same(tmp_path):
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
        load = scene.load(DURATION_S, *forms)
        begun, samples = time.time(), list[tuple[float, dict[str, int]]]()
        while load.running:
            samples.append((time.time() - begun, {name: _memory(pid) for name, pid in pids.items()}))
            time.sleep(0.5)
        result = load.result()
    finally:
        place.end()
    counted = [memory for at, memory in samples if WARM_UP_S <= at <= DURATION_S]
    tenth = max(1, len(counted) // 10)

    def median(part: list[dict[str, int]]) -> float:
        return statistics.median(sum(memory.values()) for memory in part)

    growth = median(counted[-tenth:]) / median(counted[:tenth]) - 1
    p99s = [
        entry["latency_ms"]["p99"]
        for number, entry in enumerate(result["series"])
        if entry["latency_ms"] and WARM_UP_S <= number * result["interval"] <= DURATION_S - result["interval"]
    ]
    half_way = len(p99s) // 2
    early, late = statistics.median(p99s[:half_way]), statistics.median(p99s[half_way:])
    scenes.keep(
        "soak",
        f"{DURATION_S / 60:.0f} minutes, two models, every form",
        result,
        growth_percent=round(100 * growth, 2),
        p99_ms={"first half": early, "second half": late},
        memory_mb={name: [round(each[name] / 2**20, 1) for each in (counted[0], counted[-1])] for name in pids},
    )
    assert scenes.failed(result) == {}
    if scenes.FULL:
        assert growth < MEMORY_GROWTH_LIMIT
        # The p99 may fall, because Java still compiles in the first half.
        assert late / early - 1 < P99_GROWTH_LIMIT
