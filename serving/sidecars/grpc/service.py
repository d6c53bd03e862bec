"""The Open Inference Protocol's gRPC service, answered by TorchServe's HTTP APIs.

TorchServe's own gRPC service for the protocol is not used. It drops the raw contents that every official client sends,
reports each failure as INTERNAL, and always reports that it is ready.

    ModelInfer                POST {inference}/predictions/{model}[/{version}], binary in both directions
    ModelReady, ServerReady   GET {management}/models…: every worker READY
    ModelMetadata             POST {inference}/predictions/{model} with describe: True: the handler knows its tensors
    ServerLive                GET {inference}/ping
    ServerMetadata            no request
    ModelConfig, ModelStatistics, RepositoryIndex
                              as the front door's /v2/models/…/config, /v2/models/…/stats and /v2/repository/index

A failure behind the bridge becomes a gRPC status:

    HTTP            gRPC                 why
    400, 415, 422   INVALID_ARGUMENT     the request must be changed
    401             UNAUTHENTICATED
    403             PERMISSION_DENIED
    404             NOT_FOUND            no such model or version
    413             RESOURCE_EXHAUSTED   the code that gRPC itself gives a message over the size limit
    429             RESOURCE_EXHAUSTED
    500             INTERNAL             a fault of this service
    503, 507        UNAVAILABLE          no worker, a full queue, or a GPU out of memory: safe to retry
    504             DEADLINE_EXCEEDED
    any other       UNKNOWN
    no answer       UNAVAILABLE          TorchServe does not run, or closed the connection

The mapping follows ``google/rpc/code.proto`` for the HTTP codes listed there. ``docs/api.md`` has it for callers.
"""

# ruff: noqa: N802, D102 (the methods have the protocol's names, and the table above describes them)

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import grpc
import grpc.aio
from google.protobuf import json_format, message_factory
from google.protobuf.message import DecodeError, Message

from serving import NAME, VERSION
from serving.errors import CallError
from serving.sidecars import triton
from serving.sidecars.grpc import tensors
from serving.sidecars.grpc.proto import open_inference_pb2 as messages
from serving.sidecars.torchserve import TRACE_HEADER, Upstream
from serving.sidecars.triton import Extensions

logger = logging.getLogger(__name__)

PROTOCOL = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.UNAVAILABLE,
}

# gRPC sends a status's text as an HTTP/2 header, and all headers together are limited to 8 kB.
_MAX_DETAIL_CHARACTERS = 2000

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Message]]


class Service:
    """One method for each call of the protocol. Failures are raised as ``CallError``."""

    def __init__(self, upstream: Upstream, extensions: Extensions) -> None:
        self._upstream = upstream
        self._extensions = extensions
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no inference is in flight."""
        await self._idle.wait()

    async def ServerLive(self, _request: messages.ServerLiveRequest, _context: Context) -> messages.ServerLiveResponse:
        return messages.ServerLiveResponse(live=await self._upstream.live())

    async def ServerReady(
        self, _request: messages.ServerReadyRequest, _context: Context
    ) -> messages.ServerReadyResponse:
        return messages.ServerReadyResponse(ready=await self._upstream.ready())

    async def ServerMetadata(
        self, _request: messages.ServerMetadataRequest, _context: Context
    ) -> messages.ServerMetadataResponse:
        return messages.ServerMetadataResponse(name=NAME, version=VERSION, extensions=triton.NAMES)

    async def ModelReady(self, request: messages.ModelReadyRequest, _context: Context) -> messages.ModelReadyResponse:
        try:
            ready = await self._upstream.model_ready(request.name, request.version)
        except CallError as error:
            if error.status != 404:
                raise
            # As Triton answers, whose clients ask about models that may not exist.
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def ModelMetadata(
        self, request: messages.ModelMetadataRequest, _context: Context
    ) -> messages.ModelMetadataResponse:
        metadata = await self._upstream.metadata(request.name, request.version)
        return json_format.ParseDict(metadata, messages.ModelMetadataResponse(), ignore_unknown_fields=True)

    async def ModelConfig(
        self, request: messages.ModelConfigRequest, _context: Context
    ) -> messages.ModelConfigResponse:
        config = await self._extensions.config(request.name, request.version)
        return json_format.ParseDict({"config": config}, messages.ModelConfigResponse())

    async def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, _context: Context
    ) -> messages.ModelStatisticsResponse:
        statistics = await self._extensions.statistics(request.name, request.version)
        return json_format.ParseDict(statistics, messages.ModelStatisticsResponse())

    async def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, _context: Context
    ) -> messages.RepositoryIndexResponse:
        index = await self._extensions.index(request.ready)
        return json_format.ParseDict({"models": index}, messages.RepositoryIndexResponse())

    async def ModelInfer(self, request: messages.ModelInferRequest, context: Context) -> messages.ModelInferResponse:
        self._in_flight += 1
        self._idle.clear()
        try:
            body, json_length = tensors.to_http(request)
            answer, json_length = await self._upstream.infer(
                request.model_name,
                request.model_version,
                self._in_flight == 1,
                body,
                json_length,
                context.time_remaining(),
                _traceparent(context),
            )
            return tensors.from_http(answer, json_length, tensors.is_raw(request))
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()


def _traceparent(context: Context) -> str:
    """The gateway's trace context, which it sends for sampled calls only; empty for others."""
    return str(dict(context.invocation_metadata() or ()).get(TRACE_HEADER, ""))


def add_to(server: grpc.aio.Server, service: Service) -> None:
    """Register every method of the protocol with ``server``."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in PROTOCOL.methods:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        # No request_deserializer, because gRPC would log a traceback for each message that cannot be parsed.
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            _handler(getattr(service, method.name), request), response_serializer=response.SerializeToString
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PROTOCOL.full_name, handlers),))


class Unimplemented(grpc.GenericRpcHandler):
    """Refuses every call that no other handler of the server has; register it last.

    gRPC itself would refuse it too, but without the methods that there are.
    """

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that refuses ``call``, whether it streams or not."""
        known = ", ".join(method.name for method in PROTOCOL.methods)

        async def refuse(_requests: AsyncIterator[bytes], context: Context) -> None:
            detail = f"there is no method {call.method[:200]}; {PROTOCOL.full_name} has {known}"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, detail)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _handler(method: Method, request: type[Message]) -> Callable[[bytes, Context], Awaitable[Message]]:
    """Wraps ``method``: parses the bytes of ``request``, and turns failures into gRPC statuses."""

    async def answer(received: bytes, context: Context) -> Message:
        try:
            return await method(request.FromString(received), context)
        except CallError as error:
            code, detail = _CODES.get(error.status, grpc.StatusCode.UNKNOWN), error.detail[:_MAX_DETAIL_CHARACTERS]
        except DecodeError:
            code, detail = (
                grpc.StatusCode.INVALID_ARGUMENT,
                f"the bytes are not a message of type {request.DESCRIPTOR.full_name}",
            )
        except asyncio.TimeoutError:
            code, detail = grpc.StatusCode.DEADLINE_EXCEEDED, "the inference server did not answer in time"
        except aiohttp.ClientError as error:
            logger.warning("The inference server cannot be reached: %s", error)
            code, detail = grpc.StatusCode.UNAVAILABLE, "the inference server cannot be reached"
        except Exception:
            logger.exception("Unexpected error while answering a call")
            code, detail = grpc.StatusCode.INTERNAL, "the bridge failed on this call; its log has the reason"
        await context.abort(code, detail)
        raise AssertionError("abort() raises")

    return answer
