"""A small typed client of TorchServe's management API, for commands, the supervisor and the sidecars.

A version whose archive says so is registered twice: with batches under the model's name, and without batches under
``-`` and the model's name. The gateway sends a request that is alone in flight to the second registration, so that it
does not wait for others. This client shows and changes both registrations as one version.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import httpx

from serving import loopback
from serving.errors import RefusedError, TokenError, UnreachableError
from serving.settings import Settings
from serving.store.index import version_key
from serving.torchserve import tokens
from serving.torchserve.tokens import Headers

if TYPE_CHECKING:
    # Not at run time, because it imports numpy, and the front door needs none.
    from serving.store.archives import Archive

# Models per page; TorchServe allows at most 100.
_PAGE_SIZE = "100"
# Precedes the model's name in the registration without batches. No route of the gateway accepts such a name.
UNBATCHED = "-"
# TorchServe answers in milliseconds; the rest is for a busy machine.
_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        id: TorchServe's number of the worker; its socket has it in its name, and a restarted worker keeps it.
        pid: the process, or -1 until the worker has reported its pid.
        ready: the network is loaded and the worker accepts requests.
        gpu: the worker computes on a GPU.
    """

    id: str
    pid: int
    ready: bool
    gpu: bool


@dataclasses.dataclass(frozen=True)
class Model:
    """One version of a model, as registered.

    Attributes:
        name, version: as in the archive's manifest.
        min_workers: the configured minimum number of workers.
        queued: requests waiting for a worker.
        queue_capacity: maximum number of requests that wait for a batch.
        workers: all present workers, ready or not.
    """

    name: str
    version: str
    min_workers: int
    queued: int
    queue_capacity: int
    workers: tuple[Worker, ...]

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Model:
        """Parse the management API's description of a model version."""
        queue = description["jobQueueStatus"]
        return cls(
            name=description["modelName"],
            version=description["modelVersion"],
            min_workers=description["minWorkers"],
            queued=queue["pendingRequests"],
            queue_capacity=queue["pendingRequests"] + queue["remainingCapacity"],
            workers=tuple(
                Worker(str(worker["id"]), worker["pid"], worker["status"] == "READY", worker["gpu"])
                for worker in description["workers"]
            ),
        )

    def joined(self, unbatched: Model | None) -> Model:
        """This registration and the one without batches as one version."""
        if unbatched is None:
            return self
        return dataclasses.replace(
            self,
            min_workers=self.min_workers + unbatched.min_workers,
            queued=self.queued + unbatched.queued,
            workers=self.workers + unbatched.workers,
        )

    @property
    def ready(self) -> bool:
        """At least ``min_workers`` workers exist, at least one, and all accept requests."""
        return len(self.workers) >= max(1, self.min_workers) and all(worker.ready for worker in self.workers)


def of_service(settings: Settings) -> Management:
    """The management API of the service with these settings."""
    return Management(settings.management.url, tokens.headers(settings, "management"))


class Management:
    """The management API at one address. Threads may share it.

    Args:
        url: the address, without a slash at the end.
        headers: returns the headers with the token; empty without tokens.
    """

    def __init__(self, url: str, headers: Headers = dict) -> None:
        self._url = url
        self._headers = headers

    def names(self) -> list[str]:
        """The names of all registered models.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        return [name for name in self._registrations() if not name.startswith(UNBATCHED)]

    def unbatched(self) -> set[str]:
        """The names of the models whose default version is also registered without batches; raises as ``names``."""
        names = [name.removeprefix(UNBATCHED) for name in self._registrations() if name.startswith(UNBATCHED)]

        def default(name: str) -> str | None:
            model = self._registration(name)
            return model.version if model else None

        return {name for name in names if default(name) == default(UNBATCHED + name)}

    def _registrations(self) -> list[str]:
        names: list[str] = []
        page: dict[str, str] = {}
        while True:
            answer = self._get("/models", {"limit": _PAGE_SIZE, **page})
            names += [model["modelName"] for model in answer["models"]]
            if "nextPageToken" not in answer:
                return names
            page = {"next_page_token": answer["nextPageToken"]}

    def models(self) -> list[Model]:
        """Every registered version of every model, by name and version.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        return [model for name in sorted(self.names()) for model in self.versions(name)]

    def versions(self, name: str) -> list[Model]:
        """Every registered version of one model, the oldest first; raises as ``models`` does."""
        answer = self._request("GET", f"/models/{UNBATCHED}{name}/all")
        missing = answer.status_code == httpx.codes.NOT_FOUND
        unbatched = (
            {} if missing else {each.version: each for each in map(Model.from_json, _content(self._url, answer))}
        )
        versions = map(Model.from_json, self._get(f"/models/{name}/all"))
        joined = (model.joined(unbatched.get(model.version)) for model in versions)
        return sorted(joined, key=lambda model: version_key(model.version))

    def describe(self, name: str, version: str | None = None) -> Model | None:
        """One version of a model, by default the default version; ``None`` if it is not registered.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        model = self._registration(name, version)
        return model and model.joined(self._registration(UNBATCHED + name, model.version))

    def waiting(self) -> list[str]:
        """The names of the models whose default version is not ready. Without any model: ``["any model"]``.

        The service is ready when the list is empty.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        models = {name: self.describe(name) for name in self.names()}
        return [name for name, model in (models or {"any model": None}).items() if model is None or not model.ready]

    def register(self, archive: Archive) -> None:
        """Register an archive of the model store and start its workers; returns before they are ready.

        Args:
            archive: the model version. What is registered already stays.

        Raises:
            UnreachableError: no answer.
            RefusedError: TorchServe refused; the message has its reason.
        """
        # Asynchronous, because TorchServe's default would block one of the few threads that answer predictions until
        # the network is loaded, and some requests would take seconds.
        parameters = {"url": archive.path.name, "synchronous": "false"}
        if self._registration(archive.model, archive.version) is None:
            self._change("POST", "/models", parameters)
        if archive.unbatched and self._registration(UNBATCHED + archive.model, archive.version) is None:
            self._change("POST", "/models", {**parameters, "model_name": UNBATCHED + archive.model, "batch_size": "1"})

    def set_default(self, name: str, version: str) -> None:
        """Make a registered version the default: it answers requests that name no version.

        Raises:
            UnreachableError, RefusedError: as for ``register``.
        """
        if self._registration(UNBATCHED + name, version):
            self._change("PUT", f"/models/{UNBATCHED}{name}/{version}/set-default")
        self._change("PUT", f"/models/{name}/{version}/set-default")

    def unregister(self, name: str, version: str) -> None:
        """End a version's workers. Drain it first, because requests in its queue get no answer.

        Raises:
            UnreachableError, RefusedError: as for ``register``.
        """
        if self._registration(UNBATCHED + name, version):
            self._change("DELETE", f"/models/{UNBATCHED}{name}/{version}")
        self._change("DELETE", f"/models/{name}/{version}")

    def _registration(self, name: str, version: str | None = None) -> Model | None:
        """One registration, by default that of the default version; ``None`` if there is none."""
        answer = self._request("GET", f"/models/{name}" + (f"/{version}" if version else ""))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return Model.from_json(_content(self._url, answer)[0])

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return _content(self._url, self._request("GET", path, query))

    def _change(self, method: str, path: str, query: dict[str, str] | None = None) -> None:
        answer = self._request(method, path, query)
        if not answer.is_success:
            raise RefusedError(f"TorchServe refused {method} {path}: {_reason(answer)}")

    def _request(self, method: str, path: str, query: dict[str, str] | None = None) -> httpx.Response:
        try:
            with loopback.client(_TIMEOUT_S) as client:
                return client.request(method, self._url + path, params=query, headers=self._headers())
        except TokenError as error:
            raise UnreachableError(f"the management API at {self._url} cannot be called: {error}") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"the management API at {self._url} does not answer: {error}") from error


def _content(url: str, answer: httpx.Response) -> Any:
    try:
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        if "Token Auth" in answer.text:
            raise UnreachableError(f"the management API at {url} requires a token, or another token") from error
        raise UnreachableError(f"the management API at {url} does not answer like TorchServe: {error}") from error


def _reason(answer: httpx.Response) -> str:
    try:
        return f"{answer.json()['message']} ({answer.status_code})"
    except (ValueError, KeyError, TypeError):
        return f"{answer.text[:200]} ({answer.status_code})"
