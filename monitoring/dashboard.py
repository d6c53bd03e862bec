"""Reads the panels and queries of Grafana's dashboard from ``grafana/dashboards/fashion-serve.json``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DASHBOARD = FOLDER / "grafana" / "dashboards" / "fashion-serve.json"
# All models: the initial value of the dashboard's variable.
_MODELS = ".*"


@dataclasses.dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL, with values in place of Grafana's variables.
        legend: the name of a series, with its labels as ``{{label}}``; may be empty.
    """

    expression: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel that shows data.

    Attributes:
        title: as shown in the dashboard.
        row: the title of its row.
        kind: Grafana's type, such as ``timeseries``.
        unit: Grafana's name of the unit, such as ``reqps``.
        queries: the queries of its series.
    """

    title: str
    row: str
    kind: str
    unit: str
    queries: tuple[Query, ...]


def panels(interval: str, path: Path = DASHBOARD) -> list[Panel]:
    """All panels, in the order of the dashboard.

    Args:
        interval: the value of Grafana's ``$__rate_interval``: four scrape intervals, such as ``1m``.
        path: the dashboard's file.
    """
    result: list[Panel] = []
    row = ""
    panel: dict[str, Any]
    for panel in json.loads(path.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        queries = [
            Query(
                target["expr"].replace("$__rate_interval", interval).replace("$model", _MODELS), target["legendFormat"]
            )
            for target in panel["targets"]
        ]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        result.append(Panel(panel["title"], row, panel["type"], unit, tuple(queries)))
    return result
