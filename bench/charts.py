"""Charts of the comparison and of the simulation, from ``bench/results/`` into ``docs/images/``.

python -m bench.charts         part of make bench-peers; bench.render makes the tables
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

from bench.compare import OURS
from bench.render import TITLES, comparison, results
from serving.settings import ROOT

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# This service is blue; each other server gets one of these colors.
OTHERS = ("orange", "green", "red", "purple", "brown", "pink", "gray", "olive")
IMAGES = ROOT / "docs" / "images"


def _throughput_chart(path: Path) -> None:
    shown = ("mlp", "convnet", "png")
    figure, axes = plt.subplots(1, len(shown), figsize=(5 * len(shown), 4.2), squeeze=False, layout="constrained")
    for axis, title in zip(axes[0], shown, strict=True):
        others = iter(OTHERS)
        for name, server in comparison(title)["results"]["servers"].items():
            points = [(int(c), f["requests_per_second"]) for c, f in server["connections"].items()]
            if name == OURS:
                style = {"lw": 3.0, "zorder": 3, "color": "tab:blue"}
            else:
                style = {"lw": 1.3, "color": f"tab:{next(others)}"}
            axis.plot(*zip(*points, strict=True), marker="o", label=name, **style)
        axis.set(xscale="log", yscale="log", title=TITLES[title], xlabel="connections", ylabel="requests/s")
        axis.set_xticks([1, 16, 64, 256], ["1", "16", "64", "256"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _latency_chart(measured: dict[str, Any], path: Path) -> None:
    servers = measured["results"]["servers"]
    connections = [each for each in ("16", "64", "256") if each in servers[OURS]["connections"]]
    figure, axes = plt.subplots(1, len(connections), figsize=(4.6 * len(connections), 4.2), layout="constrained")
    for axis, each in zip(axes, connections, strict=True):
        order = sorted(servers, key=lambda name: -servers[name]["connections"][each]["p50_ms"])
        p50 = [servers[name]["connections"][each]["p50_ms"] for name in order]
        p99 = [servers[name]["connections"][each]["p99_ms"] for name in order]
        colors = ["tab:blue" if name == OURS else "0.6" for name in order]
        axis.barh(order, p99, color=colors, alpha=0.35, label="p99")
        axis.barh(order, p50, color=colors, label="p50")
        axis.set(xscale="log", title=f"{each} connections", xlabel="ms: p50 dark, p99 light")
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def simulation_chart(path: Path) -> None:
    """Draw p99 by the number of replicas; ``bench.simulate`` calls it."""
    rows = results("simulation")["latency"]
    loads = sorted({row["load"] for row in rows})
    figure, axes = plt.subplots(1, len(loads), figsize=(4.6 * len(loads), 3.8), sharey=True, layout="constrained")
    for axis, load in zip(axes, loads, strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in (row for row in rows if row["load"] == load):
            name = "least, one edge" if row["edges"] == 1 else f"{row['policy']}, an edge a replica"
            lines.setdefault(name, []).append((row["replicas"], row["p99_ms"]))
        for name, points in lines.items():
            axis.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", title=f"load {load:.0%}", xlabel="replicas")
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        axis.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("p99, ms")
    axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Draw both charts of the comparison; return the exit code."""
    IMAGES.mkdir(exist_ok=True)
    try:
        _throughput_chart(IMAGES / "peers-throughput.png")
        _latency_chart(comparison("mlp"), IMAGES / "peers-latency.png")
    except FileNotFoundError as error:
        print(f"error: {error.filename} does not exist; run: make bench-peers", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
