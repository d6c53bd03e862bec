"""Prometheus accepts its configuration, the alerts fire when they must, and Grafana's files are consistent."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from monitoring import dashboard
from serving.settings import ROOT
from tests.support.watched import program


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "monitoring/prometheus.yml"),
        ("check", "rules", "monitoring/alerts.yml"),
        ("test", "rules", "tests/monitoring/alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool(arguments):
    result = subprocess.run([program("promtool"), *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_rule_test_and_an_explanation():
    rules = yaml.safe_load((dashboard.FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    cases = yaml.safe_load((ROOT / "tests" / "monitoring" / "alerts.test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in rules}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names
    documented = (ROOT / "docs" / "monitoring.md").read_text()
    assert [name for name in names if f"`{name}`" not in documented] == []


def test_the_dashboard_queries_the_provisioned_prometheus():
    provisioning = dashboard.FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    panels = json.loads(dashboard.DASHBOARD.read_text())["panels"]
    filled = [panel for panel in panels if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in filled} == {source["uid"]}
    assert {target["datasource"]["uid"] for panel in filled for target in panel["targets"]} == {source["uid"]}
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    prometheus = yaml.safe_load((dashboard.FOLDER / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.DASHBOARD.read_text())["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert grid["x"] + grid["w"] <= 24
        taken |= cells
