"""Make gRPC calls over one connection, and print as JSON how many each replica answered.

python -m tests.fleet.swarm.grpc_calls ADDRESS AUTHORITY KEY MODEL COUNT
"""

from __future__ import annotations

import collections
import json
import sys
from pathlib import Path

import grpc

from serving.sidecars.grpc.proto import open_inference_pb2


def main(address: str, authority: str, key: str, model: str, count: str) -> None:
    """Ask ``count`` times for the model's readiness."""
    credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
    replicas: collections.Counter[str] = collections.Counter()
    with grpc.secure_channel(address, credentials) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            request_serializer=open_inference_pb2.ModelReadyRequest.SerializeToString,
            response_deserializer=open_inference_pb2.ModelReadyResponse.FromString,
        )
        for _ in range(int(count)):
            request = open_inference_pb2.ModelReadyRequest(name=model)
            answer, details = call.with_call(request, timeout=30, metadata=(("x-api-key", key),))
            assert answer.ready
            replicas[str(dict(details.initial_metadata())["x-replica"])] += 1
    print(json.dumps(replicas))


if __name__ == "__main__":
    main(*sys.argv[1:])
