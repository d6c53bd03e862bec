"""The efficiency of replicas."""

from __future__ import annotations

import pytest

from bench import fleet


def test_efficiency_compares_with_copies_of_one_replica():
    assert fleet.efficiency(1000, 2550, 3) == pytest.approx(0.85)
