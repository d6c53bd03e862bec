"""TorchServe's HTTP APIs, as far as the gRPC bridge and the front door use them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp
import orjson

from serving.errors import CallError, TokenError, UnreachableError
from serving.settings import Settings
from serving.torchserve import management, tokens
from serving.torchserve.management import Management, Model

T = TypeVar("T")

logger = logging.getLogger("serving.sidecars.torchserve")

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
# Of sampled requests; handlers/transport/request_patterns.py has the same names.
TRACE_HEADER, START_HEADER = "traceparent", "X-Request-Start"

# For a ping, and for a description of a model, which waits for a worker behind the queued predictions.
_METADATA_TIMEOUT_S = 10.0

# Valid names of models and versions. They become part of a path, so other characters could change the path.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Upstream:
    """The inference and the management API of one TorchServe.

    Args:
        session: reuses connections; its creator closes it.
        settings: of the service.
    """

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._inference = settings.inference.url
        self._management = management.of_service(settings)
        self._headers = tokens.headers(settings, "inference")
        self._unbatched: set[str] = set()

    async def live(self) -> bool:
        """Whether the frontend answers."""
        try:
            async with self._session.get(self._inference + "/ping", timeout=_timeout(_METADATA_TIMEOUT_S)):
                return True
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    async def ready(self) -> bool:
        """Whether TorchServe reports every model as ready."""
        try:
            return not await self.call_management(Management.waiting)
        except CallError:
            return False

    async def model_ready(self, name: str, version: str) -> bool:
        """Whether all workers of the model accept requests.

        Raises:
            CallError: 404, or 503 without an answer of TorchServe.
        """
        return (await self.model(name, version)).ready

    async def model(self, name: str, version: str) -> Model:
        """One registered version of a model; an empty version means the default version.

        Raises:
            CallError: 404, or 503 without an answer of TorchServe.
        """
        _path(name, version)
        model = await self.call_management(lambda api: api.describe(name, version))
        if model is None:
            raise CallError(404, f"there is no model {name}{f' in version {version}' if version else ''}")
        return model

    async def versions(self, name: str = "", version: str = "") -> list[Model]:
        """Every registered version of every model, or those of one model, or one version.

        Raises:
            CallError: 404, or 503 without an answer of TorchServe.
        """
        if not name:
            return await self.call_management(Management.models)
        model = await self.model(name, version)
        return [model] if version else await self.call_management(lambda api: api.versions(name))

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        """The protocol's model metadata, with all registered versions of the model.

        Raises:
            CallError: 404, or 503 while the model has no ready worker.
        """
        _, description = await self.describe(name, version)
        versions = await self.call_management(lambda api: api.versions(name))
        return {**description, "versions": [model.version for model in versions]}

    async def describe(self, name: str, version: str) -> tuple[Model, dict[str, Any]]:
        """A model version as registered, and its metadata as its handler answers it, with only its own version.

        Raises:
            CallError: 404, or 503 while the model has no ready worker.
        """
        model = await self.model(name, version)
        if not model.ready:
            raise CallError(503, f"model {name} has workers that are not ready")
        # Not GET /models/{model}?customized=true: with continuous batching TorchServe 0.12.0 puts such a request back
        # into the queue each time it takes it out (Model.pollInferJob), and never handles another request.
        url = self._inference + "/predictions" + _path(name, version)
        headers, timeout = {"describe": "True", **self._authorization()}, _timeout(_METADATA_TIMEOUT_S)
        async with self._session.post(url, headers=headers, timeout=timeout) as answer:
            return model, orjson.loads(await _read(answer))

    async def update_unbatched(self) -> None:
        """Ask which models are registered without batches too; without an answer the last one stays."""
        with suppress(CallError):
            self._unbatched = await self.call_management(Management.unbatched)

    async def infer(
        self,
        name: str,
        version: str,
        alone: bool,
        body: bytes,
        json_length: int,
        timeout: float | None,
        traceparent: str,
    ) -> tuple[bytes, int]:
        """Send a binary inference request.

        Args:
            name, version: the model; an empty version means the default version.
            alone: no other request is in flight, so that waiting for a batch is of no use.
            body: JSON followed by the tensors.
            json_length: number of bytes of JSON at its start.
            timeout: seconds to wait for the answer.
            traceparent: W3C's header of a sampled request; empty for others.

        Returns:
            The answer's body, and the number of bytes of JSON at its start.

        Raises:
            CallError: any status other than 200.
        """
        path = _path(name, version)
        headers = {
            "Content-Type": "application/octet-stream",
            JSON_LENGTH_HEADER: str(json_length),
            **self._authorization(),
        }
        if traceparent:
            headers |= {TRACE_HEADER: traceparent, START_HEADER: f"t={time.time():.6f}"}

        async def post(path: str) -> tuple[bytes, int]:
            url = f"{self._inference}/predictions{path}"
            async with self._session.post(url, data=body, headers=headers, timeout=_timeout(timeout)) as answer:
                return await _read(answer), int(answer.headers[JSON_LENGTH_HEADER])

        if alone and name in self._unbatched:
            try:
                return await post(f"/{management.UNBATCHED}{path[1:]}")
            except CallError as error:
                # This version may have no registration without batches, although the live one has.
                if error.status != 404:
                    raise
        return await post(path)

    async def call_management(self, call: Callable[[Management], T]) -> T:
        """Call the management API in a thread.

        Args:
            call: a method of ``Management``, or a function of a ``Management``.

        Raises:
            CallError: 503, because the API does not answer.
        """
        try:
            return await asyncio.to_thread(call, self._management)
        except UnreachableError as error:
            logger.warning("%s", error)
            raise CallError(503, "TorchServe does not answer") from error

    def _authorization(self) -> dict[str, str]:
        try:
            return self._headers()
        except TokenError as error:
            logger.warning("%s", error)
            raise CallError(503, "TorchServe has not written its tokens yet") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer with status 200.

    Raises:
        CallError: any other status; with the detail of a handler's problem, or the message of TorchServe's own error.
    """
    body = await answer.read()
    if answer.status == 200:
        return body
    detail = f"the inference server answered with HTTP status {answer.status}"
    # A body that is neither of the two leaves the status as the detail.
    with suppress(ValueError, AttributeError):
        document = orjson.loads(body)
        detail = str(document.get("detail") or document.get("message") or detail)
    raise CallError(answer.status, detail)


def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def _path(name: str, version: str) -> str:
    if not name:
        raise CallError(400, "the model name is missing")
    if not _NAME.fullmatch(name):
        raise CallError(404, f"there is no model {name[:40]!r}")
    # To the management API, "all" means every version.
    if version and (not _NAME.fullmatch(version) or version == "all"):
        raise CallError(404, f"model {name} has no version {version[:40]!r}")
    return f"/{name}/{version}" if version else f"/{name}"
