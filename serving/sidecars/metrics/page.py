"""The front door's ``/metrics``: the metrics page, collected at each scrape.

    workers' files (workers.py)       requests, stages, decisions
    TorchServe's management API       workers, queues
    nginx's lines (gateway.py)        statuses and durations of the gateway's answers
    traces.py                         spans of traces, sent and lost
    nginx's status page               whether nginx answers; connections and requests, if it has stub_status

TorchServe's frontend has its own metrics, on its metrics port. A source that does not answer in time is left out, and
``fashion_torchserve_up`` or ``nginx_up`` is 0.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from serving.errors import CallError
from serving.sidecars.metrics import workers
from serving.sidecars.metrics.gateway import GatewayAnswers
from serving.sidecars.torchserve import Upstream
from serving.torchserve.management import Management, Model

if TYPE_CHECKING:
    from serving.sidecars.traces import Traces

# Half of the 10 s after which Prometheus ends a scrape by default: the sources answer in parallel.
_SOURCE_TIMEOUT_S = 5.0

# In the order of nginx's status page: https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
# Two counters of nginx's own exporter have no suffix _total. prometheus_client would append it, so they are untyped.
_NGINX = (
    (GaugeMetricFamily, "nginx_connections_active", "Client connections."),
    (UnknownMetricFamily, "nginx_connections_accepted", "Accepted client connections."),
    (UnknownMetricFamily, "nginx_connections_handled", "Handled client connections; fewer where a limit was reached."),
    (CounterMetricFamily, "nginx_http_requests_total", "Requests of clients."),
    (GaugeMetricFamily, "nginx_connections_reading", "Connections with a request head being read."),
    (GaugeMetricFamily, "nginx_connections_writing", "Connections with a request being answered."),
    (GaugeMetricFamily, "nginx_connections_waiting", "Idle client connections."),
)


@dataclasses.dataclass
class _Scrape(Collector):
    """The metrics of one scrape, in the form that the library's encoders take."""

    metrics: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.metrics


@dataclasses.dataclass
class MetricsPage:
    """The metrics page of one service.

    Attributes:
        session: reuses connections; its creator closes it.
        upstream: TorchServe's APIs.
        counts: the folder of the workers' files.
        answers: the counts of nginx's answers.
        status_url: nginx's status page.
        traces: the sender of traces, if there is one.
    """

    session: aiohttp.ClientSession
    upstream: Upstream
    counts: Path
    answers: GatewayAnswers
    status_url: str
    traces: Traces | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer ``GET /metrics`` in the newest format that the caller accepts."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(_Scrape(await self.metrics())), headers={"Content-Type": content_type})

    async def metrics(self) -> list[Metric]:
        """All current metrics."""
        models, status = await asyncio.gather(self._models(), self._status())
        counted = await asyncio.to_thread(workers.read, self.counts)
        answers = await asyncio.to_thread(self.answers.metrics)
        if models is not None:
            # The counters of a version that is no longer served stay valid, but its gauges do not.
            served = {(model.name, model.version) for model in models}
            version = operator.itemgetter("model", "version")
            for metric in counted:
                if metric.type == "gauge":
                    metric.samples = [sample for sample in metric.samples if version(sample.labels) in served]
            _add_queues(counted, models)
        traces = self.traces.metrics() if self.traces else []
        return [*counted, *torchserve_metrics(models), *answers, *nginx_metrics(status), *traces]

    async def _models(self) -> list[Model] | None:
        try:
            return await asyncio.wait_for(self.upstream.call_management(Management.models), _SOURCE_TIMEOUT_S)
        except (CallError, aiohttp.ClientError, asyncio.TimeoutError):
            return None

    async def _status(self) -> str | None:
        try:
            timeout = aiohttp.ClientTimeout(total=_SOURCE_TIMEOUT_S)
            async with self.session.get(self.status_url, timeout=timeout) as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return None


def _add_queues(counted: Sequence[Metric], models: Sequence[Model]) -> None:
    """Add the requests that wait for a worker to those in workers."""
    queued = {(model.name, model.version): model.queued for model in models}
    for metric in counted:
        if metric.name == "fashion_requests_in_work":
            metric.samples = [
                sample._replace(value=sample.value + queued[sample.labels["model"], sample.labels["version"]])
                for sample in metric.samples
            ]


def torchserve_metrics(models: list[Model] | None) -> list[Metric]:
    """Workers and queues.

    Args:
        models: every version of every model; ``None`` if the management API does not answer.
    """
    gauge = functools.partial(GaugeMetricFamily, labels=("model", "version"))
    ready = gauge("fashion_workers_ready", "Workers that accept requests.")
    minimum = gauge("fashion_workers_wanted", "Configured minimum number of workers.")
    queued = gauge("fashion_queue_requests", "Requests that wait for a worker.")
    capacity = gauge("fashion_queue_capacity", "Maximum number of waiting requests; more are refused.")
    for model in models or []:
        version = (model.name, model.version)
        ready.add_metric(version, sum(worker.ready for worker in model.workers))
        minimum.add_metric(version, model.min_workers)
        queued.add_metric(version, model.queued)
        capacity.add_metric(version, model.queue_capacity)
    up = GaugeMetricFamily("fashion_torchserve_up", "1 if the management API answers.", models is not None)
    return [up, ready, minimum, queued, capacity]


def nginx_metrics(status: str | None) -> list[Metric]:
    """The numbers of nginx's status page, with the metric names of nginx's own exporter.

    Args:
        status: the page; ``None`` if nginx does not answer.
    """
    up = GaugeMetricFamily("nginx_up", "1 if nginx's status page answers.", status is not None)
    numbers = re.findall(r"\d+", status or "")
    if len(numbers) != len(_NGINX):
        return [up]
    return [up, *(kind(name, text, float(number)) for (kind, name, text), number in zip(_NGINX, numbers, strict=True))]
