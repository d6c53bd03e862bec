"""The simulation's inputs: the fit of a batch's time, the calibration, edges, and the autoscaler's day."""

from __future__ import annotations

import json

import pytest

from bench import fleet, reporting, simulate


def _sweep(fixed, slope):
    common = {"model": fleet.MODEL, "form": "raw"}
    rows = [{**common, "connections": c, "requests_per_second": c / (fixed + slope * c)} for c in (4, 16, 64)]
    return [*rows, {**common, "connections": 1, "requests_per_second": 1.0}, {**common, "model": "other"}]


def test_the_fit_recovers_the_time_of_a_batch_and_leaves_out_the_single_caller():
    assert simulate.fit(_sweep(3e-4, 1e-5)) == pytest.approx((3e-4, 1e-5))


def test_a_calibrated_replica_spends_what_was_measured():
    one = {"callers": 32, "replica_us_per_request": 250, "cpus": 0.25}
    cost = simulate.calibrate(3e-4, 1e-5, one)
    assert cost.rate(32) == pytest.approx(0.25 / 250e-6)


@pytest.mark.parametrize(("rate", "edges"), [(10, 1), (14_000, 1), (14_001, 2), (1_400_000, 100)])
def test_edges_are_enough_for_their_utilization(rate, edges):
    assert simulate.edges_for(rate, 50) == edges


def test_the_autoscaler_costs_less_than_the_peak_and_covers_the_demand():
    day = simulate.autoscale(1000)
    assert 0.55 * day["fixed_replica_hours"] <= day["replica_hours"] < 0.65 * day["fixed_replica_hours"]
    assert simulate.LOAD * 0.99 < day["highest_load"] < simulate.LOAD * 1.05
    assert max(day["counts"]) == simulate.PEAK_REPLICAS


def test_missing_measurements_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reporting, "RESULTS", tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({"results": []}))
    assert simulate.main() == 1
    assert "fleet.json does not exist; run: make bench bench-fleet" in capsys.readouterr().err


def test_efficiency_compares_with_copies_of_one_replica():
    assert fleet.efficiency(1000, 2550, 3) == pytest.approx(0.85)
