"""What runs inside a TorchServe worker. Travels in every archive; imports nothing from ``models``."""
