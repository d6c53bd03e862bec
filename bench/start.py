"""Start: seconds from nothing running to the first right prediction of both image models.

    python -m bench.start          part of make bench; the archives and the class cache are built first

Beside it the same, in turn: a Python that only imports torch, which each worker has to do too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import requests

from bench import local_service, reporting
from models.datasets import fashion_mnist
from models.fashion_mnist import LABELS
from serving.settings import ROOT

MODELS = ("fashion_mlp", "fashion_convnet")
ROUNDS = 7
POLL = 0.01


class FirstAnswers:
    """Asks each model for a picture whose label both networks know, until it is right."""

    def __init__(self, models: Sequence[str]) -> None:
        dataset = fashion_mnist()
        self._body = dataset.test_inputs[0].numpy().tobytes()
        self._label = LABELS[int(dataset.test_targets[0])]
        self._models = models
        self.seconds = 0.0

    def __call__(self, inference: str) -> None:
        """Set ``seconds``, from now until every model has answered rightly."""
        begun = time.monotonic()
        headers = {"Content-Type": "application/octet-stream"}
        with requests.Session() as session:
            for model in self._models:
                while True:
                    try:
                        answer = session.post(
                            f"{inference}/predictions/{model}", self._body, headers=headers, timeout=10
                        )
                        if answer.ok and answer.json()["label"] == self._label:
                            break
                    except requests.RequestException:
                        pass
                    if time.monotonic() - begun > 60:
                        raise local_service.ServiceError(f"{model} did not answer rightly within a minute")
                    time.sleep(POLL)
        self.seconds = time.monotonic() - begun


def main() -> int:
    subprocess.run([sys.executable, "-m", "serving", "prepare"], cwd=ROOT, check=True)
    found: dict[str, list[float]] = {"import torch": [], "one model": [], "both models": []}
    try:
        for turn in range(1, ROUNDS + 1):
            print(f"\rround {turn}/{ROUNDS}", end="", file=sys.stderr)
            begun = time.monotonic()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            found["import torch"].append(time.monotonic() - begun)
            for name, models in (("one model", MODELS[:1]), ("both models", MODELS)):
                first = FirstAnswers(models)
                with local_service.service(models, beside=first):
                    found[name].append(first.seconds)
    except local_service.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    rows = [
        [
            name,
            f"{seconds:.2f}",
            f"{seconds - medians['import torch']:+.2f}",
            f"{min(found[name]):.2f}-{max(found[name]):.2f}",
        ]
        for name, seconds in medians.items()
    ]
    print(reporting.table(["", "seconds", "beyond import torch", "range"], rows))
    print(f"→ {reporting.write('start', {'seconds': found, 'medians': medians})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
