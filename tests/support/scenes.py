"""What every fault is tried on: the real service with a model of two workers, under load that checks every answer.

In its short form a test sends a few thousand requests and asks for what must hold on any machine on any day. With
``CHAOS=full`` in the environment (``make chaos``) it sends at least ``REQUESTS`` at half of what this machine can
answer, asks for the times as well, and leaves figures in ``bench/results/chaos.json`` and a chart in ``docs/images``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models import index_writer
from models.archiving import file_name
from serving import settings
from serving.polling import wait_until
from serving.settings import ROOT
from serving.supervisor import parts
from serving.torchserve.management import Management, Model
from tests.support import load_chart
from tests.support.packing import npz
from tests.support.place import Place

FULL = os.environ.get("CHAOS") == "full"
REQUESTS = 20_000
# Calls a second of the short form: any machine has so many to spare.
SHORT_RATE = 300.0
# Seconds that something may take where a test does not ask how long.
PATIENCE = 60.0

MODEL = "fashion_mlp"
RESULTS = ROOT / "bench" / "results" / "chaos.json"


def source() -> Path:
    """The archive that all others are made from; ``make archive`` must have built it."""
    return settings.read().model_store / f"{MODEL}.mar"


def variant(
    source: Path, store: Path, version: str = "1.0", workers: int = 2, sharpness: float = 1.0, **config: int
) -> Path:
    """Pack an archive again, as another version with other answers.

    Args:
        source: the archive.
        store: where to; its index gets an entry.
        version: the new archive's version.
        workers: how many it asks for.
        sharpness: what its scores are multiplied by before the softmax.
        config: other entries of ``model-config.yaml``.
    """
    with zipfile.ZipFile(source) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])
    manifest["model"]["modelVersion"] = version
    files["MAR-INF/MANIFEST.json"] = json.dumps(manifest).encode()
    signature = json.loads(files["signature.json"])
    signature["version"] = version
    signature["output"]["temperature"] /= sharpness
    files["signature.json"] = json.dumps(signature).encode()
    with np.load(io.BytesIO(files["golden.npz"])) as golden:
        powers = golden["probabilities"].astype(np.float64) ** sharpness
        probabilities = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
        files["golden.npz"] = npz(inputs=golden["inputs"], probabilities=probabilities)
    lines = dict(line.split(": ") for line in files["model-config.yaml"].decode().split("\n") if line)
    lines.update({"minWorkers": str(workers), "maxWorkers": str(workers)})
    lines.update({name: str(value) for name, value in config.items()})
    files["model-config.yaml"] = "".join(f"{name}: {value}\n" for name, value in lines.items()).encode()
    store.mkdir(parents=True, exist_ok=True)
    model = manifest["model"]["modelName"]
    path = store / file_name(model, version)
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    index_writer.record(store, path, model, version, 0.5)
    return path


class Load:
    """``bench.load`` in a process of its own, from when its first call begins.

    Args:
        url: the gateway.
        archives: each version that may answer.
        seconds: how long.
        output: a file for its results.
        options: further options of ``bench.load``.
    """

    def __init__(self, url: str, archives: Sequence[Path], seconds: float, output: Path, *options: str) -> None:
        self._output = output
        self._events: list[tuple[float, str]] = []
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.load", "--url", url, "--seconds", str(seconds), "--output", str(output)),
                *(option for path in archives for option in ("--archive", str(path))),
                *options,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(self)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == "asking\n", said + self._process.stdout.read()

    @property
    def running(self) -> bool:
        """Whether calls are still made."""
        return self._process.poll() is None

    def settle(self, seconds: float = 3.0) -> None:
        """Let it run for a while, so that what comes next shows beside what was before."""
        until = time.monotonic() + seconds
        assert wait_until(lambda: time.monotonic() > until, seconds + 10)
        assert self.running

    def event(self, what: str) -> float:
        """Remember that something was done just now; the time, as ``time.time`` has it."""
        self._events.append((time.time(), what))
        return self._events[-1][0]

    def stop(self) -> None:
        """Begin no more calls."""
        self._process.send_signal(signal.SIGTERM)

    def result(self) -> dict[str, Any]:
        """Wait for its end; what it measured, and the events in seconds from its start."""
        said, _ = self._process.communicate(timeout=900)
        assert self._process.returncode in (0, 1), said
        found: dict[str, Any] = json.loads(self._output.read_text())
        found["events"] = [[round(when - found["started"], 2), what] for when, what in self._events]
        return found

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.running:
            self._process.kill()
            self._process.communicate()


# Every load that was begun, for the fixture that ends those of a test that failed.
begun: list[Load] = []


def failed(result: dict[str, Any]) -> dict[str, int]:
    """The calls of a load that did not end with a right answer, by outcome."""
    return {outcome: count for outcome, count in result["calls"].items() if outcome != "ok"}


def seconds_since(result: dict[str, Any], when: float, outcomes: Sequence[str]) -> float:
    """From a time to the end of the last interval in which a call had one of these outcomes; 0 if none had."""
    offset = when - result["started"]
    last = [
        (place + 1) * result["interval"]
        for place, entry in enumerate(result["series"])
        if any(entry["calls"].get(outcome) for outcome in outcomes)
    ]
    return max(0.0, last[-1] - offset) if last else 0.0


@dataclasses.dataclass
class Scene:
    """A service under load.

    Attributes:
        place: the service.
        archives: each version that may answer.
        folder: for files of the load.
        rate: calls a second, half of what the service answers.
        response_timeout: seconds after which a worker that does not answer is replaced.
    """

    place: Place
    archives: list[Path]
    folder: Path
    rate: float
    response_timeout: int

    @property
    def management(self) -> Management:
        """Its management API."""
        return Management(self.place.management)

    def model(self, version: str = "1.0") -> Model:
        """The model as the management API describes it."""
        (found,) = [each for each in self.management.models() if (each.name, each.version) == (MODEL, version)]
        return found

    def workers(self) -> list[psutil.Process]:
        """The model's worker processes, in the order of their numbers."""
        return [psutil.Process(worker.pid) for worker in sorted(self.model().workers, key=lambda worker: worker.id)]

    def await_replaced(self, victim: psutil.Process) -> None:
        """Wait until the model is ready without this worker."""

        def replaced() -> bool:
            model = self.model()
            return model.ready and victim.pid not in [worker.pid for worker in model.workers]

        assert wait_until(replaced, PATIENCE), f"worker {victim.pid} is not replaced"

    def frontend(self) -> psutil.Process:
        """TorchServe's frontend."""
        return self.place.process(parts.FRONTEND)

    def load(self, seconds: float, *options: str, rate: float | None = None) -> Load:
        """Begin a load at the scene's rate or another one."""
        output = self.folder / f"load-{time.time_ns()}.json"
        at = ("--rate", str(rate or self.rate))
        return Load(self.place.gateway, self.archives, seconds, output, *at, *options)

    def long_enough(self, short: float, full: float) -> float:
        """Seconds of a load: ``short``, or in the full form ``full`` and as many more as ``REQUESTS`` take."""
        return max(full, REQUESTS / self.rate + 1) if FULL else short


def capacity(url: str, archives: Sequence[Path], folder: Path, *options: str, connections: int = 64) -> float:
    """Calls a second that a service answers to so many connections that always ask: the best of three rounds.

    The first of them warms up Java; one that something else on the machine disturbs must not stand for what it can do.
    """
    rates = []
    for number in range(3 if FULL else 1):
        output = folder / f"capacity-{time.time_ns()}-{number}.json"
        result = Load(url, archives, 3.0, output, "--connections", str(connections), *options).result()
        assert not failed(result), result["examples"]
        rates.append(result["calls"]["ok"] / result["seconds"])
    return float(max(rates))


def keep(name: str, title: str, result: dict[str, Any] | None, **figures: Any) -> None:
    """In the full form, write what a fault came to, and draw it.

    Args:
        name: the fault, in small letters with hyphens.
        title: the chart's heading.
        result: of the load; ``None`` for a fault without one.
        figures: what was measured beside the load.
    """
    if not FULL:
        return
    try:
        results = json.loads(RESULTS.read_text())["results"]
    except FileNotFoundError:
        results = {}
    entry = dict(figures)
    if result:
        for part in ("seconds", "rate", "calls", "tries", "versions", "latency_ms", "refusal_ms", "lag_ms", "events"):
            entry[part] = result[part]
        load_chart.draw(ROOT / "docs" / "images" / f"chaos-{name}.png", title, result)
    results[name] = entry
    subprocess.run(
        [sys.executable, "-m", "bench.reporting", "chaos"],
        cwd=ROOT,
        input=json.dumps(dict(sorted(results.items()))),
        text=True,
        check=True,
    )
