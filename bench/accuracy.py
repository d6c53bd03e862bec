"""Results of training: accuracy, calibration, parameters and seconds of every trained model.

python -m bench.accuracy       part of make bench; collects artifacts/<model>/1.0/metrics.json
"""

from __future__ import annotations

import sys

from bench import reporting
from models import artifacts, catalog
from models.errors import ArtifactError

_KEPT = ("test_accuracy", "expected_calibration_error", "parameters", "train_seconds")


def main() -> int:
    """Write ``bench/results/models.json``; return the exit code."""
    results = {}
    try:
        for name, entry in catalog.CATALOG.items():
            metrics = artifacts.metrics(name, catalog.DEFAULT_VERSION)
            shape = "×".join(map(str, entry.input.shape))
            kept = {metric: metrics[metric] for metric in _KEPT}
            results[name] = {"description": entry.description, "input": f"{shape} {entry.input.name}", **kept}
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"→ {reporting.write('models', results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
