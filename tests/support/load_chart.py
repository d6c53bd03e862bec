"""A chart of one load over time: answers and failures per second, and the latency."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

# The width of a point holds enough calls for a p99.
_POINT_WIDTH_S = 0.5
_COLORS = {"ok": "#2a78b5", "retried": "#e0a030", "failed": "#c03030"}


def _points(result: dict[str, Any]) -> dict[str, list[float]]:
    step = max(1, round(max(_POINT_WIDTH_S, result["seconds"] / 200) / result["interval"]))
    span = step * result["interval"]
    points: dict[str, list[float]] = {"time": [], "ok": [], "retried": [], "failed": [], "p99": [], "p50": []}
    # The last interval is incomplete.
    series = result["series"][:-1]
    for start in range(0, len(series) - step + 1, step):
        entries = series[start : start + step]
        calls = [(outcome, count) for entry in entries for outcome, count in entry["calls"].items()]
        tries = [(outcome, count) for entry in entries for outcome, count in entry["tries"].items()]
        failed = sum(count for outcome, count in calls if outcome != "ok")
        points["time"].append((start + step / 2) * result["interval"])
        points["ok"].append(sum(count for outcome, count in calls if outcome == "ok") / span)
        points["failed"].append(failed / span)
        points["retried"].append(sum(count for outcome, count in tries if outcome != "ok") / span)
        for name in ("p50", "p99"):
            # NaN, a gap in the line, where nothing was answered.
            points[name].append(max((entry["latency_ms"].get(name, math.nan) for entry in entries), key=_nan_first))
    return points


def _nan_first(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def draw(path: Path, title: str, result: dict[str, Any]) -> None:
    """Write the chart of a load as PNG.

    Args:
        path: the file.
        title: its heading.
        result: of ``bench.load``, with its events.
    """
    points = _points(result)
    figure, (counts, times) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 2))
    counts.plot(points["time"], points["ok"], color=_COLORS["ok"], label="right answers")
    counts.plot(points["time"], points["retried"], color=_COLORS["retried"], label="tries that failed or were refused")
    counts.plot(points["time"], points["failed"], color=_COLORS["failed"], label="calls that failed or were refused")
    counts.set_ylabel("per second")
    counts.set_ylim(bottom=0)
    counts.set_title(title, fontsize=11)
    times.plot(points["time"], points["p99"], color="#555555", label="p99 of right answers")
    times.plot(points["time"], points["p50"], color="#999999", linestyle="--", label="p50")
    times.set_yscale("log")
    times.set_ylabel("ms, with retries")
    times.set_xlabel("seconds")
    labeled = set()
    for when, what in result["events"]:
        for axes in (counts, times):
            axes.axvline(when, color="#333333", linewidth=0.8, linestyle=":")
        if what not in labeled:
            labeled.add(what)
            counts.annotate(
                what,
                (when, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(2, -3),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=7,
            )
    for axes in (counts, times):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="best")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
