"""The gRPC bridge: the Open Inference Protocol over gRPC."""
