"""What runs in containers alone: what keeps TorchServe, what becomes the gateway, and a health check."""
