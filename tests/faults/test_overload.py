"""More requests than can be answered: what is accepted is answered soon, the rest is refused at once."""

from __future__ import annotations

import random
import time

import pytest
import requests
from PIL import Image, ImageDraw

from serving.polling import wait_until
from tests.support import scenes

# Milliseconds in which accepted requests are answered, 99 of 100; and seconds until all is as before.
P99 = 250.0
NORMAL = 2.0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Files of pictures that take some milliseconds of a worker each, so that a generator can ask for too many."""
    folder = tmp_path_factory.mktemp("photographs")
    dice = random.Random(0)
    made = []
    for number in range(8):
        picture = Image.new("RGB", (480, 640), (235, 232, 228))
        draw = ImageDraw.Draw(picture)
        for _ in range(40):
            left, top = dice.randrange(60, 380), dice.randrange(80, 520)
            colour = tuple(dice.randrange(20, 200) for _ in range(3))
            draw.ellipse((left, top, left + dice.randrange(10, 90), top + dice.randrange(10, 90)), fill=colour)
        path = folder / f"photograph-{number}.jpeg"
        picture.save(path, quality=60)
        made.append(path)
    return made


def test_overload_is_refused_at_once_and_the_rest_answered_soon(scene, photographs):
    pictures = [option for path in photographs for option in ("--picture", str(path))]
    possible = scenes.capacity(scene.place.gateway, scene.archives, scene.folder, *pictures, connections=16)
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
        rate=10 * possible if scenes.FULL else 4 * possible,
    )
    load.event("overload")
    most = 0
    while load.running:
        most = max(most, sum(each.memory_info().rss for each in families))
        time.sleep(0.25)
    result = load.result()
    ended = time.time()
    wanted = {"Content-Type": "image/jpeg"}

    def normal() -> bool:
        asked = time.perf_counter()
        answered = requests.post(
            f"{scene.place.gateway}/predictions/{scenes.MODEL}",
            data=photographs[0].read_bytes(),
            headers=wanted,
            timeout=30,
        )
        return answered.status_code == 200 and (time.perf_counter() - asked) * 1000 < P99

    assert wait_until(normal, scenes.PATIENCE)
    back = time.time() - ended
    scenes.keep(
        "overload",
        f"Ten times the capacity ({possible:.0f} photographs a second)",
        result,
        capacity=round(possible),
        offered=round(sum(result["calls"].values()) / result["seconds"]),
        normal_seconds=round(back, 2),
        memory_mb={"before": before // 2**20, "most": most // 2**20},
    )
    assert set(result["calls"]) == {"ok", "refused"}
    assert result["refusals_without_retry_after"] == 0
    assert most < before + 600 * 2**20
    if scenes.FULL:
        assert result["latency_ms"]["p99"] < P99
        assert result["refusal_ms"]["p99"] < P99
        assert sum(result["calls"].values()) >= max(scenes.REQUESTS, 9 * possible * seconds)
        assert back <= NORMAL
