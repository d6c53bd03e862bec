"""Triton's extensions of the Open Inference Protocol: model configuration, statistics and repository index.

The front door answers them as JSON, the gRPC bridge as messages of the same members.

Sources: triton-inference-server/server, ``docs/protocol/extension_model_configuration.md``,
``extension_statistics.md`` and ``extension_model_repository.md``; and the clients that read them, above all
perf_analyzer's ``src/model_parser.cc`` and ``src/inference_profiler.cc``.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from handlers import limits
from serving.sidecars.metrics import workers
from serving.sidecars.torchserve import Upstream
from serving.torchserve.management import Model

# The extensions that ``/v2`` lists, by Triton's names. The handlers answer the first two.
NAMES = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")

# How long a list of all versions is reused, because listing them costs the management API one call per model. Workers
# write their counts at the same interval, so fresher lists would not make the statistics fresher.
MAX_AGE_S = 0.25

# The counts of one model version: by metric, requests as "success" and "fail", and nanoseconds by stage and in the
# "handler".
_Counts = collections.Counter[str]
# The metrics that the statistics need, by prometheus_client's names, which have no "_total".
_METRICS = {
    *("fashion_requests", "fashion_stage_seconds", "fashion_handler_seconds"),
    *("fashion_examples", "fashion_executions"),
}


class Extensions:
    """Triton's extensions, for one TorchServe.

    Args:
        upstream: TorchServe's APIs.
        counts: the folder of the workers' files.
    """

    def __init__(self, upstream: Upstream, counts: Path) -> None:
        self._upstream = upstream
        self._counts = counts
        # Of the last call of ``versions`` for all models.
        self._listed_at = 0.0
        self._listing: asyncio.Task[list[Model]] | None = None

    async def config(self, name: str, version: str) -> dict[str, Any]:
        """The model configuration; an empty version means the default version.

        Raises:
            CallError: 404, or 503 while the model has no ready worker.
        """
        model, metadata = await self._upstream.describe(name, version)
        kind = "KIND_GPU" if any(worker.gpu for worker in model.workers) else "KIND_CPU"
        return {
            "name": name,
            "platform": metadata["platform"],
            "max_batch_size": limits.EXAMPLES,
            "input": [_tensor(tensor) for tensor in metadata["inputs"]],
            "output": [_tensor(tensor) for tensor in metadata["outputs"]],
            "instance_group": [{"name": name, "count": len(model.workers), "kind": kind}],
            "dynamic_batching": {},
        }

    async def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """The counts since the start of the service.

        Triton's versions are integers, and perf_analyzer looks for the version 1 if a request was answered by 1.0. So
        the statistics of a named model have one more entry for each such integer, unless it is a version itself. The
        entry adds up the versions that begin with it.

        Args:
            name: a model; empty: all models.
            version: one of its versions; empty: all.

        Raises:
            CallError: 404, or 503 without an answer of TorchServe.
        """
        models = await (self._upstream.versions(name, version) if name else self._all_versions())
        counted = _counted(await asyncio.to_thread(workers.read, self._counts))
        entries = {(model.name, model.version): counted[model.name, model.version] for model in models}
        integers: dict[tuple[str, str], _Counts] = collections.defaultdict(_Counts)
        if name:
            for model in models:
                integers[name, model.version.partition(".")[0]].update(counted[name, model.version])
        # A version that is itself an integer keeps its own counts.
        entries = entries | integers | entries
        return {"model_stats": [_statistics(*key, counts) for key, counts in entries.items()]}

    async def index(self, ready: bool) -> list[dict[str, str]]:
        """Every registered version of every model.

        Args:
            ready: only versions whose workers accept requests.

        Raises:
            CallError: 503, because TorchServe does not answer.
        """
        return [_entry(model) for model in await self._all_versions() if model.ready or not ready]

    async def _all_versions(self) -> list[Model]:
        """Every registered version of every model, up to ``MAX_AGE_S`` old. Concurrent requests share the calls."""
        now = time.monotonic()
        if self._listing is None or now - self._listed_at >= MAX_AGE_S:
            self._listed_at, self._listing = now, asyncio.create_task(self._upstream.versions())
        # Shielded, because a caller that disconnects must not cancel the task that others wait for.
        return await asyncio.shield(self._listing)


def _tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """A tensor of the metadata in the form of the configuration, whose ``dims`` have no batch axis."""
    datatype, dims = tensor["datatype"], tensor["shape"][1:]
    described = {"name": tensor["name"], "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}"}
    # Triton allows no empty dims: one value for each example is reshaped from [N, 1] to [N].
    return {**described, "dims": dims} if dims else {**described, "dims": [1], "reshape": {"shape": []}}


def _counted(metrics: Iterable[Metric]) -> dict[tuple[str, str], _Counts]:
    """The counts that the statistics need, for each model and version."""
    counted: dict[tuple[str, str], _Counts] = collections.defaultdict(_Counts)
    for metric in metrics:
        if metric.name not in _METRICS:
            continue
        for sample in metric.samples:
            name, labels, value = sample.name, sample.labels, sample.value
            if name.endswith("_bucket"):
                continue
            if name == "fashion_requests_total":
                name = "success" if labels["status"] == "200" else "fail"
            elif name == "fashion_stage_seconds_sum":
                name, value = labels["stage"], value * 1e9
            elif name == "fashion_handler_seconds_sum":
                name, value = "handler", value * 1e9
            counted[labels["model"], labels["version"]][name] += round(value)
    return counted


def _statistics(name: str, version: str, counts: _Counts) -> dict[str, Any]:
    def duration(count: int, ns: int = 0) -> dict[str, int]:
        return {"count": count, "ns": ns}

    success = counts["success"]
    return {
        "name": name,
        "version": version,
        "inference_count": counts["fashion_examples_total"],
        "execution_count": counts["fashion_executions_total"],
        "inference_stats": {
            "success": duration(success, counts["handler"]),
            "fail": duration(counts["fail"]),
            # TorchServe measures the waits of all models together.
            "queue": duration(success),
            "compute_input": duration(success, counts["decode"]),
            "compute_infer": duration(success, counts["inference"]),
            "compute_output": duration(success, counts["encode"]),
            "cache_hit": duration(0),
            "cache_miss": duration(0),
        },
    }


def _entry(model: Model) -> dict[str, str]:
    entry = {"name": model.name, "version": model.version}
    if model.ready:
        return {**entry, "state": "READY", "reason": ""}
    ready = sum(worker.ready for worker in model.workers)
    return {**entry, "state": "UNAVAILABLE", "reason": f"{ready} of {max(1, model.min_workers)} workers are ready"}
