"""Start: seconds until the first right prediction, with one image model and with both.

    python -m bench.start          part of make bench; builds the class cache first

For comparison, a Python that only imports torch is measured in turn, because each worker imports it too.
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
_POLL_INTERVAL_S = 0.01
# A start takes a few seconds; one that takes this long has failed.
_ANSWER_TIMEOUT_S = 60


class FirstAnswers:
    """Sends each model a picture that both networks classify correctly, until the answer is right."""

    def __init__(self, models: Sequence[str]) -> None:
        dataset = fashion_mnist()
        self._body = dataset.test_inputs[0].numpy().tobytes()
        self._label = LABELS[int(dataset.test_targets[0])]
        self._models = models
        self.seconds = 0.0

    def __call__(self, inference: str) -> None:
        """Set ``seconds`` to the time until every model has given the right answer."""
        begin = time.monotonic()
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
                    if time.monotonic() - begin > _ANSWER_TIMEOUT_S:
                        raise local_service.ServiceError(f"{model}: no right answer within {_ANSWER_TIMEOUT_S} s")
                    time.sleep(_POLL_INTERVAL_S)
        self.seconds = time.monotonic() - begin


def main() -> int:
    """Write ``bench/results/start.json``; return the exit code."""
    subprocess.run([sys.executable, "-m", "serving", "prepare"], cwd=ROOT, check=True)
    results: dict[str, list[float]] = {"import torch": [], "one model": [], "both models": []}
    try:
        for turn in range(1, ROUNDS + 1):
            print(f"\rround {turn}/{ROUNDS}", end="", file=sys.stderr)
            begin = time.monotonic()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            results["import torch"].append(time.monotonic() - begin)
            for name, models in (("one model", MODELS[:1]), ("both models", MODELS)):
                first = FirstAnswers(models)
                with local_service.service(models, during_start=first):
                    results[name].append(first.seconds)
    except local_service.ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    medians = {name: statistics.median(seconds) for name, seconds in results.items()}
    rows = [
        [
            name,
            f"{seconds:.2f}",
            f"{seconds - medians['import torch']:+.2f}",
            f"{min(results[name]):.2f}-{max(results[name]):.2f}",
        ]
        for name, seconds in medians.items()
    ]
    print(reporting.table(["", "seconds", "beyond import torch", "range"], rows))
    print(f"→ {reporting.write('start', {'seconds': results, 'medians': medians})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
