"""Repeatable measurements; most modules are commands, ``python -m bench.NAME``."""
