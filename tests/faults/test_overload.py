"""Overload: accepted requests are answered quickly, the others are refused at once."""

from __future__ import annotations

import random
import time

import pytest
import requests
from PIL import Image, ImageDraw

from serving.polling import wait_until
from tests.support import scenes

# The p99 of accepted and of refused requests, and the time until a single request is fast again.
P99_LIMIT_MS = 250.0
RECOVERY_LIMIT_S = 2.0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Image files. Each takes a worker milliseconds, so that one load generator can overload the service."""
    folder = tmp_path_factory.mktemp("photographs")
    dice = random.Random(0)
    paths = []
    for number in range(8):
        picture = Image.new("RGB", (480, 640), (235, 232, 228))
        draw = ImageDraw.Draw(picture)
        for _ in range(40):
            left, top = dice.randrange(60, 380), dice.randrange(80, 520)
            color = tuple(dice.randrange(20, 200) for _ in range(3))
            draw.ellipse((left, top, left + dice.randrange(10, 90), top + dice.randrange(10, 90)), fill=color)
        path = folder / f"photograph-{number}.jpeg"
        picture.save(path, quality=60)
        paths.append(path)
    return paths


def test_overload_is_refused_at_once_and_the_others_are_answered_quickly(scene, photographs):
    pictures = [option for path in photographs for option in ("--picture", str(path))]
    capacity = scenes.capacity(scene.place.gateway, scene.archives, scene.folder, *pictures, connections=16)
    seconds = 30 if scenes.FULL else 4
    families = [scene.frontend(), *scene.workers()]
    before = sum(each.memory_info().rss for each in families)
    load = scene.load(
        seconds,
        *pictures,
        "--connections",
        "512",
        "--retries",
        "0",
        rate=10 * capacity if scenes.FULL else 4 * capacity,
    )
    load.event("overload")
    peak = 0
    while load.running:
        peak = max(peak, sum(each.memory_info().rss for each in families))
        time.sleep(0.25)
    result = load.result()
    ended = time.time()

    def recovered() -> bool:
        sent = time.perf_counter()
        answered = requests.post(
            f"{scene.place.gateway}/predictions/{scenes.MODEL}",
            data=photographs[0].read_bytes(),
            headers={"Content-Type": "image/jpeg"},
            timeout=30,
        )
        return answered.status_code == 200 and (time.perf_counter() - sent) * 1000 < P99_LIMIT_MS

    assert wait_until(recovered, scenes.PATIENCE)
    recovery = time.time() - ended
    scenes.keep(
        "overload",
        f"Ten times the capacity ({capacity:.0f} photographs a second)",
        result,
        capacity=round(capacity),
        offered=round(sum(result["calls"].values()) / result["seconds"]),
        normal_seconds=round(recovery, 2),
        memory_mb={"before": before // 2**20, "most": peak // 2**20},
    )
    assert set(result["calls"]) == {"ok", "refused"}
    assert result["refusals_without_retry_after"] == 0
    assert peak < before + 600 * 2**20
    if scenes.FULL:
        assert result["latency_ms"]["p99"] < P99_LIMIT_MS
        assert result["refusal_ms"]["p99"] < P99_LIMIT_MS
        assert sum(result["calls"].values()) >= max(scenes.REQUESTS, 9 * capacity * seconds)
        assert recovery <= RECOVERY_LIMIT_S
