"""A page of metrics, read as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(page: str) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values to its value. Model and version come first, a bucket's bound last."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            names = sorted(sample.labels, key=lambda name: (name not in ("model", "version"), name == "le", name))
            key = (sample.name, *(sample.labels[name] for name in names if name.lower() != "hostname"))
            assert key not in found, key
            found[key] = sample.value
    return found
