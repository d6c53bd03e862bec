"""The panels of Grafana's dashboard, as what Prometheus is asked for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DASHBOARD = FOLDER / "grafana" / "dashboards" / "fashion-serve.json"
# All models, as the dashboard's variable has it at first.
_MODELS = ".*"


@dataclasses.dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: in PromQL, without Grafana's variables.
        legend: names a series by its labels, as ``{{label}}``; may be empty.
    """

    expression: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel that shows data.

    Attributes:
        title: as the dashboard shows it.
        row: the title of the row that it is in.
        kind: Grafana's type, such as ``timeseries``.
        unit: Grafana's name of the unit, such as ``reqps``.
        queries: what it shows.
    """

    title: str
    row: str
    kind: str
    unit: str
    queries: tuple[Query, ...]


def panels(interval: str, path: Path = DASHBOARD) -> list[Panel]:
    """All panels, in the order of the dashboard.

    Args:
        interval: what Grafana's ``$__rate_interval`` stands for: four scrape intervals, such as ``1m``.
        path: the dashboard.
    """
    found: list[Panel] = []
    row = ""
    described: dict[str, Any]
    for described in json.loads(path.read_text())["panels"]:
        if described["type"] == "row":
            row = described["title"]
            continue
        queries = [
            Query(
                target["expr"].replace("$__rate_interval", interval).replace("$model", _MODELS), target["legendFormat"]
            )
            for target in described["targets"]
        ]
        unit = described["fieldConfig"]["defaults"]["unit"]
        found.append(Panel(described["title"], row, described["type"], unit, tuple(queries)))
    return found
