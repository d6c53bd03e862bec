"""The asyncio servers beside TorchServe: front door, gRPC bridge, and the metrics page."""
