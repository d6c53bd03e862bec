"""A parser for metrics pages."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(page: str) -> dict[tuple[str, ...], float]:
    """Every sample: (name, label values…) → value. Model and version are first, and a bucket's bound is last."""
    result: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            names = sorted(sample.labels, key=lambda name: (name not in ("model", "version"), name == "le", name))
            key = (sample.name, *(sample.labels[name] for name in names if name.lower() != "hostname"))
            assert key not in result, key
            result[key] = sample.value
    return result
