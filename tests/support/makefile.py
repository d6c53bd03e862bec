"""The targets of the Makefile."""

from __future__ import annotations

import re

from serving.settings import ROOT


def targets() -> set[str]:
    """Every target with a plain name."""
    rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}
