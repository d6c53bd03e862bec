"""The dashboard as a picture, drawn from a Prometheus without Grafana.

python -m monitoring.plot http://127.0.0.1:9090 dashboard.png --minutes 60
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from monitoring import dashboard
from monitoring.dashboard import Panel, Query
from monitoring.prometheus import Prometheus, QueryError, Series

_COLUMNS = 3
# Grafana's name of a unit → the label of an axis.
_UNITS = {"reqps": "requests/s", "ops": "1/s", "percentunit": "share", "s": "s", "ms": "ms", "µs": "µs", "none": ""}
# A longer legend would cover the lines, whose colors could not be told apart anyway.
_MAX_LEGEND_ENTRIES = 13
# Values per series: more than the width of a panel can show makes only the queries slower.
_POINTS = 120


def draw(prometheus: Prometheus, path: Path, minutes: float, interval: str = "1m") -> None:
    """Draw every panel but the tables; panels with a single number become lines over time.

    Args:
        prometheus: the data source.
        path: of the PNG file.
        minutes: how far back.
        interval: as for ``dashboard.panels``.

    Raises:
        QueryError: Prometheus does not answer, or rejects a query.
    """
    end = time.time()
    start = end - minutes * 60
    panels = [panel for panel in dashboard.panels(interval) if panel.kind != "table"]
    rows = -(-len(panels) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(18, 2.8 * rows), layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for panel, axes in zip(panels, grid.flat, strict=False):
        lines = [
            (query, series)
            for query in panel.queries
            for series in prometheus.query_range(query.expression, start, end, (end - start) / _POINTS)
        ]
        _plot(axes, panel, lines, end)
        axes.set_xlim(-minutes, 0)
    figure.supxlabel("minutes ago", fontsize=9)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _plot(axes: Axes, panel: Panel, lines: Sequence[tuple[Query, Series]], end: float) -> None:
    axes.set_title(panel.title, fontsize=11, loc="left")
    for query, series in lines:
        minutes = [(moment - end) / 60 for moment in series.times]
        axes.plot(minutes, series.values, linewidth=1.2, label=_name(query, series))
    axes.set_ylabel(_UNITS.get(panel.unit, panel.unit), fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    names = sum(bool(_name(*line)) for line in lines)
    if 0 < names <= _MAX_LEGEND_ENTRIES:
        axes.legend(fontsize=7, ncols=1 + (names > _MAX_LEGEND_ENTRIES // 2), framealpha=0.6)


def _name(query: Query, series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: series.labels.get(match[1], ""), query.legend)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.plot", description="Draw the dashboard.")
    parser.add_argument("url", help="address of the Prometheus")
    parser.add_argument("path", type=Path, help="PNG file to write")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back (%(default)s)")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    try:
        draw(Prometheus(arguments.url.rstrip("/")), arguments.path, arguments.minutes)
    except QueryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
