"""A small typed client of TorchServe's management API."""

from __future__ import annotations

import dataclasses
from typing import Any

import requests

from serving.errors import UnreachableError

# Models in one answer; TorchServe gives at most 100.
_PAGE = "100"


@dataclasses.dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        id: TorchServe's number of the worker; its socket is named by it, and it outlives the process.
        pid: the process, or -1 while it has not told its id.
        ready: the network is loaded and the worker takes requests.
        gpu: it computes on a GPU.
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
        archive: the archive's file name in the model store.
        batch_size: most requests in one batch.
        max_batch_delay_ms: longest wait for a batch to fill, in whole milliseconds.
        min_workers: how many workers it should have at least.
        queued: requests waiting for a worker.
        workers: those there are, ready or not.
    """

    name: str
    version: str
    archive: str
    batch_size: int
    max_batch_delay_ms: int
    min_workers: int
    queued: int
    workers: tuple[Worker, ...]

    @property
    def ready(self) -> bool:
        """All workers that it should have take requests."""
        return len(self.workers) >= self.min_workers and all(worker.ready for worker in self.workers)


def _model(described: dict[str, Any]) -> Model:
    return Model(
        name=described["modelName"],
        version=described["modelVersion"],
        archive=described["modelUrl"],
        batch_size=described["batchSize"],
        max_batch_delay_ms=described["maxBatchDelay"],
        min_workers=described["minWorkers"],
        queued=described["jobQueueStatus"]["pendingRequests"],
        workers=tuple(
            Worker(str(worker["id"]), worker["pid"], worker["status"] == "READY", worker["gpu"])
            for worker in described["workers"]
        ),
    )


class Management:
    """The management API at one address.

    Args:
        url: its address, without a slash at the end.
        timeout: seconds to wait for a connection, and for an answer.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self._url = url
        self._timeout = timeout
        self._session = requests.Session()
        # A proxy from the environment cannot reach this machine's loopback address.
        self._session.trust_env = False

    def names(self) -> list[str]:
        """The names of all registered models.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        names: list[str] = []
        page: dict[str, str] = {}
        while True:
            answer = self._get("/models", {"limit": _PAGE, **page})
            names += [model["modelName"] for model in answer["models"]]
            if "nextPageToken" not in answer:
                return names
            page = {"next_page_token": answer["nextPageToken"]}

    def models(self) -> list[Model]:
        """Every registered version of every model, by name and version.

        Raises:
            UnreachableError: no answer, or one that is not TorchServe's.
        """
        found = [_model(described) for name in self.names() for described in self._get(f"/models/{name}/all")]
        return sorted(found, key=lambda model: (model.name, model.version))

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        try:
            answer = self._session.get(self._url + path, params=query, timeout=self._timeout)
            answer.raise_for_status()
            return answer.json()
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(f"the management API at {self._url} does not answer: {error}") from error
