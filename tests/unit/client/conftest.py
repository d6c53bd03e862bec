"""A scripted service, and both clients with the same calls."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fashion_client import FashionClient, retrying
from fashion_client.asynchronous import AsyncFashionClient

from tests.support.scripted_service import ScriptedService


class Blocking:
    """An AsyncFashionClient with blocking calls, so that one test covers both clients."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = AsyncFashionClient(*args, **options)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.isasyncgen(result):
                return self._loop.run_until_complete(self._all(result))
            return self._loop.run_until_complete(result)

        return call

    @staticmethod
    async def _all(results: Any) -> list[Any]:
        return [each async for each in results]

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASHION_URL", "FASHION_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with ScriptedService() as running:
        yield running


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """No random wait between attempts; ``Retry-After`` still counts."""
    monkeypatch.setattr(retrying, "FIRST_BACKOFF_S", 0.0)


@pytest.fixture(params=["requests", "httpx"])
def connect(request: pytest.FixtureRequest, service: ScriptedService) -> Iterator[Callable[..., Any]]:
    """Opens either client for the scripted service."""
    opened: list[Any] = []

    def open_client(url: str | None = None, **options: Any) -> Any:
        kind = FashionClient if request.param == "requests" else Blocking
        opened.append(kind(url or service.url, **options))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()


@pytest.fixture
def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
