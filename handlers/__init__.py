"""The code that runs in a TorchServe worker. Every archive contains it; it imports nothing from ``models``."""
