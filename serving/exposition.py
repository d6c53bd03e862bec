"""Prometheus' text format, version 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A backslash, a quotation mark or a line break would end a label's value or its line.
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclasses.dataclass(frozen=True)
class Sample:
    """One number.

    Attributes:
        name: the family's name, with a suffix such as ``_bucket`` where its kind needs one.
        labels: by name.
        value: any float, NaN and infinity too.
    """

    name: str
    labels: Mapping[str, str]
    value: float


@dataclasses.dataclass
class Family:
    """One metric with all its samples.

    Attributes:
        name: the metric.
        kind: ``counter``, ``gauge`` or ``histogram``.
        help: what it tells, on one line.
        samples: in the order they are written.
    """

    name: str
    kind: str
    help: str
    samples: list[Sample] = dataclasses.field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> None:
        """Add one sample."""
        self.samples.append(Sample(self.name + suffix, labels, value))


def gauge(name: str, help: str, value: float | None = None) -> Family:
    """A gauge, with its one sample if a value is given."""
    family = Family(name, "gauge", help)
    if value is not None:
        family.add(value)
    return family


def render(families: Iterable[Family]) -> bytes:
    """The families as a page; one without samples is left out."""
    lines = []
    for family in families:
        if family.samples:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            lines += [f"{sample.name}{_labels(sample.labels)} {number(sample.value)}" for sample in family.samples]
    return "".join(f"{line}\n" for line in lines).encode()


def number(value: float) -> str:
    """A number as Prometheus and Go read it: whole ones without a fraction, ``+Inf``, ``NaN``."""
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items()) + "}"
