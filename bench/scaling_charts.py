"""Charts of the simulated fleet, from ``bench/results/simulate.json`` into ``docs/images/``.

python -m bench.scaling_charts         part of make bench-fleet
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

from bench.charts import IMAGES
from bench.render import results
from bench.simulate import PEAK_REPLICAS, demand

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def _sizes_chart(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        axis.plot([row["replicas"] for row in own], [row["p99_ms"] for row in own], marker="o", label=policy)
    axis.set(xscale="log", yscale="log", xlabel="replicas", ylabel="p99, ms", title="Simulated p99 by policy")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _day_chart(counts: list[int], path: Path) -> None:
    hours = [24 * index / len(counts) for index in range(len(counts))]
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axis.step(hours, counts, where="post", label="replicas that are ready")
    axis.plot(hours, [PEAK_REPLICAS * demand(3600 * hour) for hour in hours], label="demand, in replicas")
    axis.set(xlabel="hour", ylabel="replicas", title="A day with an autoscaler", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Draw both charts; return the exit code."""
    try:
        simulated = results("simulate")
    except FileNotFoundError as error:
        print(f"error: {error.filename} does not exist; run: make bench-fleet", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    _sizes_chart(simulated["scale"], IMAGES / "scaling-p99.png")
    _day_chart(simulated["day"]["counts"], IMAGES / "scaling-day.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
