"""The setting of the fault tests: a real service, whose model has two workers, under a load that checks each answer.

In its short form a test sends a few thousand requests, and asserts what must hold on any machine. With ``CHAOS=full``
in the environment (``make chaos``) it sends at least ``REQUESTS`` at half of this machine's capacity. Then it also
asserts times, writes its results to ``bench/results/chaos.json``, and draws a chart in ``docs/images``.
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
import requests

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
# Calls per second of the short form, which any machine can answer.
SHORT_RATE = 300.0
# The time in seconds before the first event of a load; the full form's chart shows it.
SETTLE_S = 3.0 if FULL else 1.0
# The time in seconds from the last event to the end of a load in the short form. A caller's wait before its next try,
# at most 1.8 s with a Retry-After of a second, is over by then.
REST_S = 4.0
# Longer than any load of the short form, which ``Load.finish`` stops.
_UNTIL_STOPPED_S = 600.0
# The timeout in seconds of a wait whose duration is not asserted.
PATIENCE = 60.0

# From a kill, or the detection of a hung part, until the service is ready again.
RESTART_LIMIT_S = 10.0
# Outcomes after which a caller may retry.
RETRIABLE = {"refused", "unconnected", "broken"}

MODEL = "fashion_mlp"
RESULTS = ROOT / "bench" / "results" / "chaos.json"


def source() -> Path:
    """The archive that the tests make variants of; ``make archive`` must have built it."""
    return settings.read().model_store / f"{MODEL}.mar"


def variant(
    source: Path, store: Path, version: str = "1.0", workers: int = 2, sharpness: float = 1.0, **config: int
) -> Path:
    """Repack an archive as another version with other probabilities.

    Args:
        source: the archive.
        store: the model store of the new archive, which is added to its index.
        version: of the new archive.
        workers: the number of workers.
        sharpness: the factor of the scores before the softmax.
        config: further entries of ``model-config.yaml``.
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
    """A process of ``bench.load``. The constructor returns when the first call begins.

    Args:
        url: of the gateway.
        archives: of all versions that may answer.
        seconds: the duration.
        output: the file for the results.
        options: further options of ``bench.load``.
        place: a command that runs a program elsewhere, such as in a network namespace.
    """

    def __init__(
        self,
        url: str,
        archives: Sequence[Path],
        seconds: float,
        output: Path,
        *options: str,
        place: Sequence[str] = (),
    ) -> None:
        self._output = output
        self._events: list[tuple[float, str]] = []
        self._process = subprocess.Popen(
            [
                *place,
                *(sys.executable, "-m", "bench.load", "--url", url, "--seconds", str(seconds), "--output", str(output)),
                *(option for path in archives for option in ("--archive", str(path))),
                *options,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(self)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "load started\n", line + self._process.stdout.read()

    @property
    def running(self) -> bool:
        """Whether the load still runs."""
        return self._process.poll() is None

    def settle(self, seconds: float = SETTLE_S) -> None:
        """Run for a while before the next event."""
        time.sleep(seconds)
        assert self.running

    def event(self, name: str) -> float:
        """Record that an event happens now; its time by ``time.time``."""
        self._events.append((time.time(), name))
        return self._events[-1][0]

    def stop(self) -> None:
        """Stop the load; it completes its open calls."""
        self._process.send_signal(signal.SIGTERM)

    def result(self) -> dict[str, Any]:
        """Wait for the end of the load; its results, and the events with their seconds since its start."""
        output, _ = self._process.communicate(timeout=900)
        assert self._process.returncode in (0, 1), output
        result: dict[str, Any] = json.loads(self._output.read_text())
        result["events"] = [[round(when - result["started"], 2), name] for when, name in self._events]
        return result

    def finish(self) -> dict[str, Any]:
        """Let the load end: in the full form by itself, in the short form ``REST_S`` from now; its ``result``."""
        if not FULL:
            self.settle(REST_S)
            self.stop()
        return self.result()

    def kill(self) -> None:
        """Kill the load, if it runs."""
        if self.running:
            self._process.kill()
            self._process.communicate()


# All loads, for the fixture that kills those of a failed test.
started: list[Load] = []


def failed(result: dict[str, Any]) -> dict[str, int]:
    """The number of a load's failed calls, by outcome."""
    return {outcome: count for outcome, count in result["calls"].items() if outcome != "ok"}


def seconds_since(result: dict[str, Any], when: float, outcomes: Sequence[str]) -> float:
    """Seconds from a time to the end of the last interval with one of these outcomes; 0 without any."""
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
        archives: of all versions that may answer.
        folder: for the files of the loads.
        rate: calls per second, half of the service's capacity.
        response_timeout: seconds after which TorchServe replaces a worker that does not answer.
    """

    place: Place
    archives: list[Path]
    folder: Path
    rate: float
    response_timeout: int

    @property
    def management(self) -> Management:
        """TorchServe's management API."""
        return Management(self.place.management)

    def is_ready(self) -> bool:
        """Whether the gateway answers 200 at /readyz."""
        try:
            return requests.get(f"{self.place.gateway}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def model(self, version: str = "1.0") -> Model:
        """The description of the model by the management API."""
        (model,) = [each for each in self.management.models() if (each.name, each.version) == (MODEL, version)]
        return model

    def workers(self) -> list[psutil.Process]:
        """The model's worker processes, sorted by their ids."""
        return [psutil.Process(worker.pid) for worker in sorted(self.model().workers, key=lambda worker: worker.id)]

    def await_replaced(self, victim: psutil.Process) -> None:
        """Wait until a new worker has replaced this one."""

        def replaced() -> bool:
            model = self.model()
            return model.ready and victim.pid not in [worker.pid for worker in model.workers]

        assert wait_until(replaced, PATIENCE), f"worker {victim.pid} was not replaced within {PATIENCE:g} s"

    def frontend(self) -> psutil.Process:
        """TorchServe's frontend."""
        return self.place.process(parts.FRONTEND)

    def load(self, seconds: float, *options: str, rate: float | None = None) -> Load:
        """Start a load at the scene's rate or another one."""
        output = self.folder / f"load-{time.time_ns()}.json"
        at = ("--rate", str(rate or self.rate))
        return Load(self.place.gateway, self.archives, seconds, output, *at, *options)

    def length(self, full: float) -> float:
        """The duration of a load for ``Load.finish``: in the full form at least this, and enough for ``REQUESTS``."""
        return max(full, REQUESTS / self.rate + 1) if FULL else _UNTIL_STOPPED_S


def capacity(url: str, archives: Sequence[Path], folder: Path, *options: str, connections: int = 64) -> float:
    """The calls per second that a service answers over some connections: the best of three rounds.

    The first round warms up Java. The best one is taken because other load on the machine can slow a round.
    """
    rates = []
    for number in range(3 if FULL else 1):
        output = folder / f"capacity-{time.time_ns()}-{number}.json"
        result = Load(url, archives, 3.0, output, "--connections", str(connections), *options).result()
        assert not failed(result), result["examples"]
        rates.append(result["calls"]["ok"] / result["seconds"])
    return float(max(rates))


def keep(name: str, title: str, result: dict[str, Any] | None, **figures: Any) -> None:
    """In the full form, write the results of a fault test, and draw its chart.

    Args:
        name: of the fault, in lower case with hyphens.
        title: of the chart.
        result: of the load; ``None`` for a test without one.
        figures: further measurements.
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
