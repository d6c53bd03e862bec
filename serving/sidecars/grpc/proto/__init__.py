"""Generated from ``open_inference.proto``; ``python -m serving.sidecars.grpc.proto`` generates it again."""
