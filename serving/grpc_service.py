"""The Open Inference Protocol's gRPC service, answered by TorchServe's HTTP APIs.

TorchServe has such a service of its own, on a port that stays on the loopback address: it drops the raw contents that
every official client sends, reports each failure as an internal one, and always says that it is ready.

    ModelInfer                POST {inference}/predictions/{model}[/{version}], binary in both directions
    ModelReady, ServerReady   GET {management}/models…: every worker READY
    ModelMetadata             POST {inference}/predictions/{model} with describe: True: the handler knows its tensors
    ServerLive                GET {inference}/ping
    ServerMetadata            no request
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from serving import NAME, VERSION, grpc_errors, grpc_tensors
from serving.errors import CallError
from serving.oip_proto import open_inference_pb2 as messages
from serving.upstream import Upstream

logger = logging.getLogger(__name__)

_IDLE_PAUSE_S = 0.1
PROTOCOL = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Message]]


class Service:
    """One method for each call of the protocol; the names are the protocol's. Failures are ``CallError``."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._in_flight = 0

    async def idle(self) -> None:
        """Return when no inference is in flight."""
        while self._in_flight:
            await asyncio.sleep(_IDLE_PAUSE_S)

    async def ServerLive(  # noqa: N802
        self, _request: messages.ServerLiveRequest, _context: Context
    ) -> messages.ServerLiveResponse:
        return messages.ServerLiveResponse(live=await self._upstream.live())

    async def ServerReady(  # noqa: N802
        self, _request: messages.ServerReadyRequest, _context: Context
    ) -> messages.ServerReadyResponse:
        return messages.ServerReadyResponse(ready=await self._upstream.ready())

    async def ServerMetadata(  # noqa: N802
        self, _request: messages.ServerMetadataRequest, _context: Context
    ) -> messages.ServerMetadataResponse:
        return messages.ServerMetadataResponse(name=NAME, version=VERSION)

    async def ModelReady(  # noqa: N802
        self, request: messages.ModelReadyRequest, _context: Context
    ) -> messages.ModelReadyResponse:
        return messages.ModelReadyResponse(ready=await self._upstream.model_ready(request.name, request.version))

    async def ModelMetadata(  # noqa: N802
        self, request: messages.ModelMetadataRequest, _context: Context
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

    async def ModelInfer(  # noqa: N802
        self, request: messages.ModelInferRequest, context: Context
    ) -> messages.ModelInferResponse:
        self._in_flight += 1
        try:
            body, json_length = grpc_tensors.to_http(request)
            answer, json_length = await self._upstream.infer(
                request.model_name, request.model_version, body, json_length, context.time_remaining()
            )
            return grpc_tensors.from_http(answer, json_length, grpc_tensors.is_raw(request))
        finally:
            self._in_flight -= 1


def add_to(server: grpc.aio.Server, service: Service) -> None:
    """Register every method of the protocol with ``server``."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in PROTOCOL.methods:
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        # gRPC's own use of a deserializer logs a traceback for each message that cannot be read.
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            _answering(getattr(service, method.name), request), response_serializer=response.SerializeToString
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PROTOCOL.full_name, handlers),))


def _answering(method: Method, request: type[Message]) -> Callable[[bytes, Context], Awaitable[Message]]:
    """``method`` for bytes of ``request``, with its failures told to the caller as gRPC statuses."""

    async def answer(received: bytes, context: Context) -> Message:
        try:
            return await method(request.FromString(received), context)
        except CallError as error:
            code, detail = grpc_errors.status(error)
        except DecodeError:
            code, detail = grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are no {request.DESCRIPTOR.full_name}"
        except asyncio.TimeoutError:
            code, detail = grpc.StatusCode.DEADLINE_EXCEEDED, "the inference server did not answer in time"
        except aiohttp.ClientError as error:
            logger.warning("The inference server cannot be reached: %s", error)
            code, detail = grpc.StatusCode.UNAVAILABLE, "the inference server cannot be reached"
        except Exception:
            logger.exception("A call failed by a fault of the bridge")
            code, detail = grpc.StatusCode.INTERNAL, "the bridge failed on this call; its log has the reason"
        await context.abort(code, detail)
        raise AssertionError("abort() raises")

    return answer
