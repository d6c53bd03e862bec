"""Training, evaluating, exporting and archiving the networks: ``python -m models --help``."""

import os

# Idle OpenMP threads spin by default. As soon as anything else wants a core, each parallel step of torch then waits for
# a thread that is waiting for that core: with two busy neighbours on two cores training became up to ten times slower.
# Read when torch is imported, so it stands before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
