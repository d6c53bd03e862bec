"""The same client for asyncio, on httpx: ``pip install fashion-client[async]``."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from fashion_client import _calls, _inputs, errors, retrying
from fashion_client._base import DEFAULT_MODEL, BaseClient, PredictOptions
from fashion_client._calls import Answer, Call, or_raise
from fashion_client._inputs import Array, Encoded, Example
from fashion_client.errors import AnswerTimeoutError, ConnectError, FashionError
from fashion_client.results import Explanation, Model, Prediction, Predictions

try:
    import httpx
except ImportError as error:
    raise ImportError("AsyncFashionClient needs httpx: pip install 'fashion-client[async]'") from error

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")
R = TypeVar("R")


class AsyncFashionClient(BaseClient):
    """``fashion_client.FashionClient`` for asyncio: the same arguments, calls, results and errors.

    One client belongs to one event loop. There is no progress bar.
    """

    def _open(self) -> None:
        self._http = httpx.AsyncClient(
            headers=self._headers,
            timeout=self._timeout,
            # Callers may run many calls concurrently; each call limits its own requests.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self._in_flight),
        )

    async def aclose(self) -> None:
        """Close the connections; the client cannot be used again."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncFashionClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # A str is a sequence of str as well; the first match decides.
    @overload
    async def predict(self, images: Encoded, **options: Unpack[PredictOptions]) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    async def predict(self, images: Array, **options: Unpack[PredictOptions]) -> Any: ...
    @overload
    async def predict(self, images: Sequence[Example], **options: Unpack[PredictOptions]) -> Sequence[Prediction]: ...
    async def predict(
        self,
        images: Example | Sequence[Example],
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Prediction | Sequence[Prediction]:
        """See ``fashion_client.FashionClient.predict``."""
        call = partial(_calls.prediction, model, version, top_k)
        if _inputs.are_arrays(images):
            batch, single = _inputs.as_batch(images, await self._example_shape(model))
            if not single:
                return await self._predict_batch(batch, model, version, top_k)
            images = batch[0]
        if isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
            return await self._request_all(call, images)
        return await self._request(call(images))

    def predict_each(
        self,
        images: Iterable[Example],
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        top_k: int | None = None,
    ) -> AsyncGenerator[Prediction | FashionError, None]:
        """See ``fashion_client.FashionClient.predict_each``."""
        return self._request_each(partial(_calls.prediction, model, version, top_k), images)

    async def explain(
        self, image: Example, *, model: str = DEFAULT_MODEL, target: int | str | None = None
    ) -> Explanation:
        """See ``fashion_client.FashionClient.explain``."""
        return await self._request(_calls.explanation(image, model, target))

    async def heat_map(self, image: Example, *, model: str = DEFAULT_MODEL, target: int | str | None = None) -> bytes:
        """See ``fashion_client.FashionClient.heat_map``."""
        return await self._request(_calls.heat_map(image, model, target))

    async def models(self) -> tuple[str, ...]:
        """See ``fashion_client.FashionClient.models``."""
        return await self._request(_calls.models())

    async def model(self, name: str) -> Model:
        """See ``fashion_client.FashionClient.model``."""
        return await self._request(_calls.model(name))

    async def ready(self) -> bool:
        """See ``fashion_client.FashionClient.ready``."""
        try:
            return await self._send(_calls.ready())
        except (ConnectError, AnswerTimeoutError):
            return False

    async def _predict_batch(self, batch: Array, model: str, version: str | None, top_k: int | None) -> Predictions:
        if not len(batch):
            return _calls.empty_predictions(top_k)
        first = await self._request(_calls.prediction(model, version, None, batch[0]))
        labels = _calls.labels(first, top_k)
        rows = await self._request_all(partial(_calls.probabilities, model, version, labels), _inputs.pieces(batch))
        return Predictions(labels, np.concatenate(rows), independent=first.class_index is None, top_k=top_k)

    async def _example_shape(self, model: str) -> tuple[int, ...]:
        if model not in self._example_shapes:
            self._example_shapes[model] = (await self.model(model)).inputs[0].shape[1:]
        return self._example_shapes[model]

    async def _request_all(self, call: Callable[[T], Call[R]], items: Iterable[T]) -> list[R]:
        each = self._request_each(call, items)
        async with contextlib.aclosing(each) as outcomes:
            return [or_raise(outcome) async for outcome in outcomes]

    def _request_each(self, call: Callable[[T], Call[R]], items: Iterable[T]) -> AsyncGenerator[R | FashionError, None]:
        return _in_order(lambda item: self._request(call(item)), items, self._in_flight)

    async def _request(self, call: Call[T]) -> T:
        failed = 0
        while True:
            try:
                return await self._send(call)
            except FashionError as error:
                failed += 1
                wait = retrying.wait_before_retry(error, failed, self._retries)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _send(self, call: Call[T]) -> T:
        url = self._url + call.path
        try:
            response = await self._http.request(
                call.method, url, params=call.params, headers=call.headers, content=call.body
            )
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise errors.timeout_error(url, self._timeout) from error
        except httpx.TransportError as error:
            if any(isinstance(cause, ssl.SSLError) for cause in errors.causes(error)):
                raise errors.tls_error(url, error, "SSL_CERT_FILE") from error
            raise errors.connect_error(url, error) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise errors.request_error(url, error) from error
        return call.read(Answer(url, response.status_code, response.headers, response.content))


async def _in_order(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int
) -> AsyncGenerator[R | FashionError, None]:
    """Like ``fashion_client.client._in_order``, with tasks instead of threads."""
    slots = asyncio.Semaphore(limit)

    async def outcome(item: T) -> R | FashionError:
        async with slots:
            try:
                return await work(item)
            except FashionError as error:
                return error

    started: deque[asyncio.Task[R | FashionError]] = deque()
    try:
        for item in items:
            started.append(asyncio.create_task(outcome(item)))
            if len(started) == 2 * limit:
                yield await started.popleft()
        while started:
            yield await started.popleft()
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
