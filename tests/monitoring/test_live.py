"""With real traffic, a real Prometheus has data for every panel and every alert."""

from __future__ import annotations

import re
import subprocess
import time

import matplotlib as mpl
import pytest
import requests
import yaml

from monitoring import dashboard, plot
from serving.polling import wait_until
from tests.support import watched

PANELS = dashboard.panels(watched.INTERVAL)
ALERTS = yaml.safe_load((dashboard.FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
# A PromQL comparison. It filters series; followed by `bool`, it returns 0 or 1 for each series.
_COMPARISON = re.compile(r"(?<![=!~{\"])(==|<=|>=|<|>)(?!=)(?= )")


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(query.expression, id=f"{panel.title}-{number}")
        for panel in PANELS
        for number, query in enumerate(panel.queries)
    ],
)
def test_every_query_of_the_dashboard_has_data(prometheus, expression):
    # The first failure of a kind creates a series, which has no rate yet.
    assert wait_until(lambda: bool(prometheus.query(expression)), watched.TIMEOUT), expression


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_data(prometheus, rule):
    expression, count = _COMPARISON.subn(r"\1 bool", rule["expr"])
    assert count, "an alert without a comparison"
    result = prometheus.query(expression)
    assert result, expression
    assert all(series.values[0] in (0.0, 1.0) for series in result)


def test_prometheus_evaluates_the_alerts_and_the_lost_worker_fires_one(prometheus):
    (group,) = prometheus.get("rules", type="alert")["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == {rule["alert"]: "ok" for rule in ALERTS}
    firing = 'ALERTS{alertname="WorkerRestarts", alertstate="firing", WorkerName=~".*blobs_mlp.*"}'
    assert wait_until(lambda: bool(prometheus.query(firing)), watched.TIMEOUT)
    assert prometheus.query('ALERTS{alertname=~"NotScraped|TorchServeDown|GatewayDown", alertstate="firing"}') == []


def test_both_targets_are_scraped_without_errors(prometheus):
    targets = prometheus.get("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"]: target["lastError"] for target in targets} == {"torchserve": "", "frontdoor": ""}


@pytest.mark.usefixtures("prometheus")
def test_promtool_accepts_the_front_doors_page(place):
    page = requests.get(f"{place.settings.frontdoor.url}/metrics", timeout=10).text
    command = [watched.program("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=page, capture_output=True, text=True)
    assert result.stderr == ""


def test_the_dashboard_is_drawn(prometheus, tmp_path):
    mpl.use("Agg")
    plot.draw(prometheus, tmp_path / "dashboard.png", minutes=1, interval=watched.INTERVAL)
    assert (tmp_path / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def test_an_unreachable_prometheus_is_an_error(capsys, tmp_path):
    started = time.monotonic()
    assert plot.main(["http://127.0.0.1:9", str(tmp_path / "dashboard.png")]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert time.monotonic() - started < 60
