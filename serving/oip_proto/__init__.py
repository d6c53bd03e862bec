"""Python code that protoc makes of ``open_inference.proto``; ``python -m serving.oip_proto`` makes it anew."""
