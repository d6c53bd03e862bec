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
# A comparison that keeps what it holds for; with `bool` after it, it gives 0 or 1 for everything that it is asked of.
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
    # The first failure of a kind makes a series that has no rate yet.
    assert wait_until(lambda: bool(prometheus.now(expression)), watched.TIMEOUT), expression


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_what_it_looks_at(prometheus, rule):
    looked_at, count = _COMPARISON.subn(r"\1 bool", rule["expr"])
    assert count, "an alert without a comparison"
    found = prometheus.now(looked_at)
    assert found, looked_at
    assert all(series.values[0] in (0.0, 1.0) for series in found)


def test_prometheus_evaluates_the_alerts_and_the_lost_worker_shows(prometheus):
    (group,) = prometheus.get("rules", type="alert")["groups"]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == {rule["alert"]: "ok" for rule in ALERTS}
    firing = 'ALERTS{alertname="WorkerRestarts", alertstate="firing", WorkerName=~".*blobs_mlp.*"}'
    assert wait_until(lambda: bool(prometheus.now(firing)), watched.TIMEOUT)
    assert prometheus.now('ALERTS{alertname=~"NotScraped|TorchServeDown|GatewayDown", alertstate="firing"}') == []


def test_both_targets_are_scraped_without_fault(prometheus):
    targets = prometheus.get("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"]: target["lastError"] for target in targets} == {"torchserve": "", "frontdoor": ""}


@pytest.mark.usefixtures("prometheus")
def test_promtool_finds_no_fault_in_the_front_doors_page(place):
    page = requests.get(f"{place.settings.frontdoor.url}/metrics", timeout=10).text
    command = [watched.program("promtool"), "check", "metrics"]
    ran = subprocess.run(command, input=page, capture_output=True, text=True)
    assert ran.stderr == ""


def test_draws_the_dashboard(prometheus, tmp_path):
    mpl.use("Agg")
    plot.draw(prometheus, tmp_path / "dashboard.png", minutes=1, interval=watched.INTERVAL)
    assert (tmp_path / "dashboard.png").read_bytes().startswith(b"\x89PNG")


def test_a_question_that_cannot_be_answered_is_told(capsys, tmp_path):
    began = time.monotonic()
    assert plot.main(["http://127.0.0.1:9", str(tmp_path / "dashboard.png")]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert time.monotonic() - began < 60
