"""The Open Inference Protocol's gRPC service, answered by TorchServe's HTTP APIs.

TorchServe has such a service of its own, on a port that stays on the loopback address: it drops the raw contents that
every official client sends, reports each failure as an internal one, and always says that it is ready.

    ModelInfer                POST {inference}/predictions/{model}[/{version}], binary in both directions
    ModelReady, ServerReady   GET {management}/models…: every worker READY
    ModelMetadata             GET {management}/models/{model}?customized=true: the handler knows its tensors
    ServerLive                GET {inference}/ping
    ServerMetadata            no request
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import grpc
import grpc.aio

from serving import grpc_tensors
from serving.grpc_errors import CallError
from serving.grpc_upstream import Upstream
from serving.oip_proto import open_inference_pb2 as messages
from serving.oip_proto.open_inference_pb2_grpc import GRPCInferenceServiceServicer

logger = logging.getLogger(__name__)

NAME = "fashion-serve"
VERSION = "0.1.0"

Asked = TypeVar("Asked")
Told = TypeVar("Told")
Context = grpc.aio.ServicerContext[Any, Any]


def _with_status(
    method: Callable[[Service, Asked, Context], Awaitable[Told]],
) -> Callable[[Service, Asked, Context], Awaitable[Told]]:
    """Tell a method's failures to the caller as gRPC statuses."""

    @functools.wraps(method)
    async def call(self: Service, request: Asked, context: Context) -> Told:
        try:
            return await method(self, request, context)
        except CallError as error:
            code, detail = error.code, error.detail
        except asyncio.TimeoutError:
            code, detail = grpc.StatusCode.DEADLINE_EXCEEDED, "the inference server did not answer in time"
        except aiohttp.ClientError as error:
            logger.warning("The inference server cannot be reached: %s", error)
            code, detail = grpc.StatusCode.UNAVAILABLE, "the inference server cannot be reached"
        except Exception:
            logger.exception("A call failed by a fault of the bridge")
            code, detail = grpc.StatusCode.INTERNAL, "the bridge failed on this call; its log has the reason"
        return await context.abort(code, detail)

    return call


class Service(GRPCInferenceServiceServicer):
    """One method for each call of the protocol; the names are the protocol's."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @_with_status
    async def ServerLive(self, _: messages.ServerLiveRequest, __: Context) -> messages.ServerLiveResponse:  # noqa: N802
        return messages.ServerLiveResponse(live=await self._upstream.live())

    @_with_status
    async def ServerReady(  # noqa: N802
        self, _: messages.ServerReadyRequest, __: Context
    ) -> messages.ServerReadyResponse:
        return messages.ServerReadyResponse(ready=await self._upstream.ready())

    @_with_status
    async def ServerMetadata(  # noqa: N802
        self, _: messages.ServerMetadataRequest, __: Context
    ) -> messages.ServerMetadataResponse:
        return messages.ServerMetadataResponse(name=NAME, version=VERSION)

    @_with_status
    async def ModelReady(  # noqa: N802
        self, request: messages.ModelReadyRequest, _: Context
    ) -> messages.ModelReadyResponse:
        return messages.ModelReadyResponse(ready=await self._upstream.model_ready(request.name, request.version))

    @_with_status
    async def ModelMetadata(  # noqa: N802
        self, request: messages.ModelMetadataRequest, _: Context
    ) -> messages.ModelMetadataResponse:
        described = await self._upstream.metadata(request.name, request.version)
        tensor = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name=described["name"],
            versions=described["versions"],
            platform=described["platform"],
            inputs=[tensor(**each) for each in described["inputs"]],
            outputs=[tensor(**each) for each in described["outputs"]],
        )

    @_with_status
    async def ModelInfer(  # noqa: N802
        self, request: messages.ModelInferRequest, context: Context
    ) -> messages.ModelInferResponse:
        body, json_length = grpc_tensors.to_http(request)
        answer, json_length = await self._upstream.infer(
            request.model_name, request.model_version, body, json_length, context.time_remaining()
        )
        return grpc_tensors.from_http(answer, json_length, grpc_tensors.is_raw(request))
