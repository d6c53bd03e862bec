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
# Grafana's names of units, as an axis shows them.
_UNITS = {"reqps": "requests/s", "ops": "1/s", "percentunit": "share", "s": "s", "ms": "ms", "µs": "µs", "none": ""}
_LONGEST_LEGEND = 13
_VALUES = 120


def draw(prometheus: Prometheus, path: Path, minutes: float, interval: str = "1m") -> None:
    """Draw every panel that shows series over time, or would show one number.

    Args:
        prometheus: whom to ask.
        path: of the PNG file.
        minutes: how far back.
        interval: as for ``dashboard.panels``.

    Raises:
        QueryError: Prometheus does not answer, or cannot.
    """
    end = time.time()
    start = end - minutes * 60
    shown = [panel for panel in dashboard.panels(interval) if panel.kind != "table"]
    rows = -(-len(shown) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(18, 2.8 * rows), layout="constrained")
    for place in grid.flat[len(shown) :]:
        place.set_visible(False)
    for panel, place in zip(shown, grid.flat, strict=False):
        lines = [
            (query, series)
            for query in panel.queries
            for series in prometheus.between(query.expression, start, end, (end - start) / _VALUES)
        ]
        _plot(place, panel, lines, end)
        place.set_xlim(-minutes, 0)
    figure.supxlabel("minutes ago", fontsize=9)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _plot(place: Axes, panel: Panel, lines: Sequence[tuple[Query, Series]], end: float) -> None:
    place.set_title(panel.title, fontsize=11, loc="left")
    for query, series in lines:
        minutes = [(moment - end) / 60 for moment in series.times]
        place.plot(minutes, series.values, linewidth=1.2, label=_name(query, series))
    place.set_ylabel(_UNITS.get(panel.unit, panel.unit), fontsize=8)
    place.set_ylim(bottom=0)
    place.tick_params(labelsize=8)
    place.grid(alpha=0.3)
    names = sum(bool(_name(*line)) for line in lines)
    # More would cover the lines, and nobody could tell their colours apart.
    if 0 < names <= _LONGEST_LEGEND:
        place.legend(fontsize=7, ncols=1 + (names > _LONGEST_LEGEND // 2), framealpha=0.6)


def _name(query: Query, series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), query.legend)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.plot", description="Draw the dashboard.")
    parser.add_argument("url", help="address of the Prometheus")
    parser.add_argument("path", type=Path, help="PNG file to write")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back (%(default)s)")
    given = parser.parse_args(argv)
    matplotlib.use("Agg")
    try:
        draw(Prometheus(given.url.rstrip("/")), given.path, given.minutes)
    except QueryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
