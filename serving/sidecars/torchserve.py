"""TorchServe's APIs, as far as the gRPC bridge and the front door ask them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp
import orjson

from serving.errors import CallError, TokenError, UnreachableError
from serving.settings import Settings
from serving.torchserve import management, tokens
from serving.torchserve.management import Management

T = TypeVar("T")

logger = logging.getLogger("serving.sidecars.torchserve")

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

# Seconds for a worker's answer about what its model takes.
_METADATA_TIMEOUT_S = 10.0

# What a model or version can be called. Anything else could change the path that it becomes a part of.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Upstream:
    """The inference and the management API of one TorchServe.

    Args:
        session: reuses connections; whoever made it closes it.
        given: where the APIs are, and whether they ask for tokens.
    """

    def __init__(self, session: aiohttp.ClientSession, given: Settings) -> None:
        self._session = session
        self._inference = given.inference.url
        self._management = management.of_service(given)
        self._headers = tokens.headers(given, "inference")

    async def live(self) -> bool:
        """The frontend answers."""
        try:
            async with self._session.get(self._inference + "/ping", timeout=_timeout(_METADATA_TIMEOUT_S)):
                return True
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    async def ready(self) -> bool:
        """The service is ready, as far as TorchServe tells."""
        try:
            return not await self.managed(Management.waiting)
        except CallError:
            return False

    async def model_ready(self, name: str, version: str) -> bool:
        """Every worker that the model should have takes requests.

        Raises:
            CallError: 404, or TorchServe does not tell.
        """
        _path(name, version)
        model = await self.managed(lambda api: api.describe(name, version))
        if model is None:
            raise CallError(404, f"there is no model {name}{f' in version {version}' if version else ''}")
        return model.ready

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        """The protocol's model metadata, with all registered versions of the model.

        Raises:
            CallError: 404, or 503 while no worker can tell.
        """
        if not await self.model_ready(name, version):
            raise CallError(503, f"model {name} has workers that are not ready")
        # Not GET /models/{model}?customized=true: with continuous batching TorchServe 0.12.0 puts such a request back
        # into its queue each time that it takes it out (Model.pollInferJob), and never comes to another.
        url = self._inference + "/predictions" + _path(name, version)
        headers, timeout = {"describe": "True", **self._authorization()}, _timeout(_METADATA_TIMEOUT_S)
        async with self._session.post(url, headers=headers, timeout=timeout) as answer:
            described = orjson.loads(await _read(answer))
        versions = await self.managed(lambda api: api.versions(name))
        return {**described, "versions": [model.version for model in versions]}

    async def infer(
        self, name: str, version: str, body: bytes, json_length: int, timeout: float | None
    ) -> tuple[bytes, int]:
        """Send a binary inference request.

        Args:
            name, version: the model; an empty version stands for the default one.
            body: JSON followed by the tensors.
            json_length: how many bytes at its start are JSON.
            timeout: seconds to wait for the answer.

        Returns:
            The answer's body, and how many bytes at its start are JSON.

        Raises:
            CallError: any answer but a good one.
        """
        url = self._inference + "/predictions" + _path(name, version)
        headers = {
            "Content-Type": "application/octet-stream",
            JSON_LENGTH_HEADER: str(json_length),
            **self._authorization(),
        }
        async with self._session.post(url, data=body, headers=headers, timeout=_timeout(timeout)) as answer:
            return await _read(answer), int(answer.headers[JSON_LENGTH_HEADER])

    async def managed(self, ask: Callable[[Management], T]) -> T:
        """What the management API answers.

        Raises:
            CallError: TorchServe does not tell.
        """
        try:
            return await asyncio.to_thread(ask, self._management)
        except UnreachableError as error:
            logger.warning("%s", error)
            raise CallError(503, "TorchServe does not answer") from error

    def _authorization(self) -> dict[str, str]:
        try:
            return self._headers()
        except TokenError as error:
            logger.warning("%s", error)
            raise CallError(503, "TorchServe has left no tokens yet") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body of a good answer; of any other, a problem of the handlers or an error of TorchServe's own is raised."""
    body = await answer.read()
    if answer.status == 200:
        return body
    detail = f"the inference server answered with HTTP status {answer.status}"
    # Neither of the two: the status has to do.
    with suppress(ValueError, AttributeError):
        told = orjson.loads(body)
        detail = str(told.get("detail") or told.get("message") or detail)
    raise CallError(answer.status, detail)


def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def _path(name: str, version: str) -> str:
    if not name:
        raise CallError(400, "the request names no model")
    if not _NAME.fullmatch(name):
        raise CallError(404, f"there is no model {name[:40]!r}")
    # The management API takes "all" for every version.
    if version and (not _NAME.fullmatch(version) or version == "all"):
        raise CallError(404, f"model {name} has no version {version[:40]!r}")
    return f"/{name}/{version}" if version else f"/{name}"
