"""Training, evaluating, exporting and archiving the networks: ``python -m models --help``."""
