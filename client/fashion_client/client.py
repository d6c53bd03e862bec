"""The client: calls to a fashion-serve service over HTTP, on requests.

images ──► _inputs: bytes ──► _calls: HTTP request ──► (send, retry if that may help) ──► _calls: typed result
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import requests
from requests import exceptions

from fashion_client import _calls, _inputs, errors, retrying
from fashion_client._base import DEFAULT_MODEL, BaseClient, PredictOptions
from fashion_client._calls import Answer, Call, or_raise
from fashion_client._inputs import Array, Encoded, Example
from fashion_client._progress import progress_bar
from fashion_client.errors import AnswerTimeoutError, ConnectError, FashionError
from fashion_client.results import Explanation, Model, Prediction, Predictions

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")
R = TypeVar("R")


class _PredictOptions(PredictOptions, total=False):
    progress: bool


class FashionClient(BaseClient):
    """A connection to a fashion-serve service; open it once and use it from any number of threads.

    Calls raise a ``fashion_client.errors.FashionError``. A call that fails with a connection error, 429 or 503 is
    retried up to ``retries`` times. Each retry waits for the service's ``Retry-After`` plus a growing random delay.

    Args:
        url: the service's address; by default ``$FASHION_URL``, else ``http://127.0.0.1:8000``.
        api_key: the API key, if the service requires one; by default ``$FASHION_API_KEY``.
        timeout: seconds to wait for a connection, and again for each part of an answer; above 0.
        retries: the most retries of a failed call, 0 or more.
        in_flight: concurrent requests of one call with many examples, 1 or more.

    Raises:
        InputError: an argument is invalid.
    """

    def _open(self) -> None:
        self._session = requests.Session()
        # Read proxies and certificate authorities from the environment once. For each request this would take as long
        # as the request itself, and an entry for this host in ~/.netrc would replace the API key.
        environment = self._session.merge_environment_settings(self._url, {}, None, None, None)
        self._session.trust_env = False
        self._session.proxies.update(environment["proxies"])
        self._session.verify = environment["verify"]
        self._session.headers.update(self._headers)
        # More threads than this open further connections, and close them after one call.
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._in_flight)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session.close()

    def __enter__(self) -> FashionClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # A str is a sequence of str as well; the first match decides.
    @overload
    def predict(self, images: Encoded, **options: Unpack[_PredictOptions]) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Array, **options: Unpack[_PredictOptions]) -> Any: ...
    @overload
    def predict(self, images: Sequence[Example], **options: Unpack[_PredictOptions]) -> Sequence[Prediction]: ...
    def predict(
        self,
        images: Example | Sequence[Example],
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        top_k: int | None = None,
        progress: bool = False,
    ) -> Prediction | Sequence[Prediction]:
        """Predict one example, or many in their order.

        Args:
            images: a path, the bytes of a file, a Pillow image, a numpy array, or a list of them. An array is one
                example or a batch of them (for images [28, 28], [784], [N, 28, 28] or [N, 784]; integers 0-255 or
                floats 0-1). A batch is sent in pieces (the limits are in ``_inputs.py``).
            model: the model's name, as ``models`` returns it.
            version: the model's version; by default the service's live one.
            top_k: return only the k likeliest labels, 1 or more.
            progress: show a progress bar for many examples on standard error.

        Returns:
            A ``Prediction`` for one example, ``Predictions`` for a batch, a sequence for a list.

        Raises:
            FashionError: the call failed. For a list or batch, the error of the first failed example in order.
        """
        call = partial(_calls.prediction, model, version, top_k)
        if _inputs.are_arrays(images):
            batch, single = _inputs.as_batch(images, self._example_shape(model))
            if not single:
                return self._predict_batch(batch, model, version, top_k, progress)
            images = batch[0]
        if isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
            return self._request_all(call, images, len(images), progress)
        return self._request(call(images))

    def predict_each(
        self,
        images: Iterable[Example],
        *,
        model: str = DEFAULT_MODEL,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Generator[Prediction | FashionError, None, None]:
        """Predict examples one by one with concurrent requests, and continue after an error.

        Args:
            images: single examples, as for ``predict``; consumed only as needed.
            model: the model's name.
            version: the model's version; by default the service's live one.
            top_k: return only the k likeliest labels, 1 or more.

        Yields:
            For each example, in order, its prediction or the error of its call.
        """
        return self._request_each(partial(_calls.prediction, model, version, top_k), images)

    def explain(self, image: Example, *, model: str = DEFAULT_MODEL, target: int | str | None = None) -> Explanation:
        """Explain how much each part of an example supports a label.

        Args:
            image: a single example, as for ``predict``.
            model: the model's name.
            target: a label or its index; by default the likeliest label.
        """
        return self._request(_calls.explanation(image, model, target))

    def heat_map(self, image: Example, *, model: str = DEFAULT_MODEL, target: int | str | None = None) -> bytes:
        """The explanation of an image as a picture: the bytes of a PNG file. Arguments as for ``explain``."""
        return self._request(_calls.heat_map(image, model, target))

    def models(self) -> tuple[str, ...]:
        """The names of the service's models."""
        return self._request(_calls.models())

    def model(self, name: str) -> Model:
        """A model's versions, inputs and outputs."""
        return self._request(_calls.model(name))

    def ready(self) -> bool:
        """Whether the service is ready for predictions. One request without retries, so that it suits a polling loop.

        Returns:
            False if the service is not ready, does not answer in time, or is unreachable.

        Raises:
            FashionError: another program answers at this address.
        """
        try:
            return self._send(_calls.ready())
        except (ConnectError, AnswerTimeoutError):
            return False

    def _predict_batch(
        self, batch: Array, model: str, version: str | None, top_k: int | None, progress: bool
    ) -> Predictions:
        if not len(batch):
            return _calls.empty_predictions(top_k)
        first = self._request(_calls.prediction(model, version, None, batch[0]))
        labels = _calls.labels(first, top_k)
        call = partial(_calls.probabilities, model, version, labels)
        rows = self._request_all(call, _inputs.pieces(batch), len(batch), progress)
        return Predictions(labels, np.concatenate(rows), independent=first.class_index is None, top_k=top_k)

    def _example_shape(self, model: str) -> tuple[int, ...]:
        if model not in self._example_shapes:
            self._example_shapes[model] = self.model(model).inputs[0].shape[1:]
        return self._example_shapes[model]

    def _request_all(self, call: Callable[[T], Call[R]], items: Iterable[T], total: int, progress: bool) -> list[R]:
        results = []
        each = self._request_each(call, items)
        with progress_bar(total, shown=progress) as advance, contextlib.closing(each) as outcomes:
            for outcome in outcomes:
                results.append(or_raise(outcome))
                advance(len(outcome) if isinstance(outcome, np.ndarray) else 1)
        return results

    def _request_each(
        self, call: Callable[[T], Call[R]], items: Iterable[T]
    ) -> Generator[R | FashionError, None, None]:
        return _in_order(lambda item, abandoned: self._request(call(item), abandoned), items, self._in_flight)

    def _request(self, call: Call[T], abandoned: threading.Event | None = None) -> T:
        failed = 0
        while True:
            try:
                return self._send(call)
            except FashionError as error:
                failed += 1
                wait = retrying.wait_before_retry(error, failed, self._retries)
                # An event's wait is a sleep that ends early when the event is set. Without a batch nothing sets it.
                if wait is None or (abandoned or threading.Event()).wait(wait):
                    raise

    def _send(self, call: Call[T]) -> T:
        url = self._url + call.path
        try:
            response = self._session.request(
                call.method,
                url,
                params=call.params,
                headers=call.headers,
                data=call.body,
                timeout=self._timeout,
                # The service never redirects a call. Another host must not receive the API key.
                allow_redirects=False,
            )
        except exceptions.SSLError as error:
            raise errors.tls_error(url, error, "REQUESTS_CA_BUNDLE") from error
        except (exceptions.Timeout, exceptions.ConnectionError, exceptions.ChunkedEncodingError) as error:
            *_, cause = errors.causes(error)
            # requests raises a Timeout only until an answer's first byte; a later one is a ConnectionError.
            if isinstance(cause, TimeoutError) and not isinstance(error, exceptions.ConnectTimeout):
                raise errors.timeout_error(url, self._timeout) from error
            raise errors.connect_error(url, error) from error
        except exceptions.RequestException as error:
            raise errors.request_error(url, error) from error
        return call.read(Answer(url, response.status_code, response.headers, response.content))


def _in_order(
    work: Callable[[T, threading.Event], R], items: Iterable[T], limit: int
) -> Generator[R | FashionError, None, None]:
    """Run ``work`` for each item on ``limit`` threads, and yield the outcomes in the items' order.

    At most ``2 * limit`` items are consumed ahead of the caller: one in work and one waiting per thread, so that no
    thread pauses, and neither a long iterable nor its results fill the memory. If the caller stops early, waiting items
    are dropped, and the event passed to ``work`` is set so that it ends soon.

    Yields:
        What ``work`` returned, or the ``FashionError`` that it raised.
    """
    abandoned = threading.Event()

    def outcome(item: T) -> R | FashionError:
        try:
            return work(item, abandoned)
        except FashionError as error:
            return error

    started: deque[Future[R | FashionError]] = deque()
    pool = ThreadPoolExecutor(limit, thread_name_prefix="fashion")
    try:
        for item in items:
            started.append(pool.submit(outcome, item))
            if len(started) == 2 * limit:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        abandoned.set()
        pool.shutdown(cancel_futures=True)
