"""TorchServe's HTTP APIs, as far as the gRPC bridge and the front door ask them."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import aiohttp
import grpc
import orjson

from serving import grpc_errors
from serving.errors import TokenError
from serving.grpc_errors import CallError
from serving.management import Model
from serving.tokens import Keys, Kind

logger = logging.getLogger("serving.upstream")

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

# Seconds for an answer of the management API, or for a worker's of what its model takes.
MANAGEMENT_TIMEOUT = 10.0

# What a model or version can be called. Anything else could change the path that it becomes a part of.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Upstream:
    """The inference and the management API of one TorchServe.

    Args:
        session: reuses connections; whoever made it closes it.
        inference, management: the addresses, without a slash at the end.
        keys: its tokens; ``None`` where it asks for none.
    """

    def __init__(
        self, session: aiohttp.ClientSession, inference: str, management: str, keys: Keys | None = None
    ) -> None:
        self._session = session
        self._keys = keys
        self._inference = inference
        self._management = management

    async def live(self) -> bool:
        """The frontend answers."""
        try:
            async with self._session.get(self._inference + "/ping", timeout=_timeout(MANAGEMENT_TIMEOUT)):
                return True
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return False

    async def ready(self) -> bool:
        """There are models, and the default version of each is ready."""
        try:
            names = await self.names()
            return bool(names) and all(await asyncio.gather(*(self.model_ready(name, "") for name in names)))
        except (CallError, aiohttp.ClientError, asyncio.TimeoutError):
            return False

    async def model_ready(self, name: str, version: str) -> bool:
        """Every worker that the model should have takes requests.

        Raises:
            CallError: NOT_FOUND.
        """
        (model,) = await self._managed("/models" + _path(name, version))
        workers = model["workers"]
        return len(workers) >= max(1, model["minWorkers"]) and all(worker["status"] == "READY" for worker in workers)

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        """The protocol's model metadata, with all registered versions of the model.

        Raises:
            CallError: NOT_FOUND, or UNAVAILABLE while no worker can tell.
        """
        if not await self.model_ready(name, version):
            raise CallError(grpc.StatusCode.UNAVAILABLE, f"model {name} has workers that are not ready")
        # Not GET /models/{model}?customized=true: with continuous batching TorchServe 0.12.0 puts such a request back
        # into its queue each time that it takes it out (Model.pollInferJob), and never comes to another.
        url = self._inference + "/predictions" + _path(name, version)
        headers, timeout = {"describe": "True", **self._authorization("inference")}, _timeout(MANAGEMENT_TIMEOUT)
        async with self._session.post(url, headers=headers, timeout=timeout) as answer:
            described = orjson.loads(await _read(answer))
        versions = [each["modelVersion"] for each in await self._managed(f"/models/{name}/all")]
        return {**described, "versions": sorted(versions)}

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
            **self._authorization("inference"),
        }
        async with self._session.post(url, data=body, headers=headers, timeout=_timeout(timeout)) as answer:
            return await _read(answer), int(answer.headers[JSON_LENGTH_HEADER])

    async def names(self) -> list[str]:
        """The names of all models.

        Raises:
            CallError: TorchServe does not tell.
        """
        names: list[str] = []
        page = ""
        while True:
            listed = await self._managed(f"/models?limit=100{page}")
            names += [model["modelName"] for model in listed["models"]]
            if "nextPageToken" not in listed:
                return names
            page = f"&next_page_token={listed['nextPageToken']}"

    async def described(self) -> list[Model]:
        """Every version of every model.

        Raises:
            CallError: TorchServe does not tell.
        """
        found = await asyncio.gather(*(self._managed(f"/models/{name}/all") for name in await self.names()))
        return [Model.from_json(model) for versions in found for model in versions]

    async def _managed(self, path: str) -> Any:
        headers, timeout = self._authorization("management"), _timeout(MANAGEMENT_TIMEOUT)
        async with self._session.get(self._management + path, headers=headers, timeout=timeout) as answer:
            return orjson.loads(await _read(answer))

    def _authorization(self, kind: Kind) -> dict[str, str]:
        if self._keys is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._keys.of(kind)}"}
        except TokenError as error:
            logger.warning("%s", error)
            raise CallError(grpc.StatusCode.UNAVAILABLE, "TorchServe has left no tokens yet") from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    read = await answer.read()
    if answer.status != 200:
        raise grpc_errors.from_http(answer.status, read)
    return read


def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


def _path(name: str, version: str) -> str:
    if not name:
        raise CallError(grpc.StatusCode.INVALID_ARGUMENT, "the request names no model")
    if not _NAME.fullmatch(name):
        raise CallError(grpc.StatusCode.NOT_FOUND, f"there is no model {name[:40]!r}")
    # The management API takes "all" for every version.
    if version and (not _NAME.fullmatch(version) or version == "all"):
        raise CallError(grpc.StatusCode.NOT_FOUND, f"model {name} has no version {version[:40]!r}")
    return f"/{name}/{version}" if version else f"/{name}"
