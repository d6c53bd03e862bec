"""The asyncio servers beside TorchServe: the front door with its metrics page, and the gRPC bridge."""
