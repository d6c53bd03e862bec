"""Everything that the front door's ``/metrics`` tells, gathered at the moment it is asked.

    workers' files (serving/worker_counts.py)     requests, stages, decisions
    TorchServe's management API                   workers, queues
    nginx's lines (serving/gateway_answers.py)    statuses and times that callers got
    nginx's status page                           whether it answers; connections and requests, where it has stub_status

TorchServe's frontend has metrics of its own on its metrics port. Nothing here waits longer than a scrape may; what
cannot be asked is left out, and ``fashion_torchserve_up`` or ``nginx_up`` is 0.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from serving import worker_counts
from serving.exposition import CONTENT_TYPE, Family, Sample, gauge, render
from serving.gateway_answers import GatewayAnswers
from serving.grpc_errors import CallError
from serving.upstream import Upstream

# Seconds; Prometheus gives up after 10 by default.
_TIMEOUT = 5.0

# https://nginx.org/en/docs/http/ngx_http_stub_status_module.html
_STUB_STATUS = re.compile(
    r"Active connections: (?P<active>\d+) \n"
    r"server accepts handled requests\n (?P<accepted>\d+) (?P<handled>\d+) (?P<requests>\d+) \n"
    r"Reading: (?P<reading>\d+) Writing: (?P<writing>\d+) Waiting: (?P<waiting>\d+)"
)


class Watch:
    """Watches one service.

    Args:
        session: reuses connections; whoever made it closes it.
        upstream: TorchServe's APIs.
        counts: the folder of the workers' files.
        answers: what nginx writes of its answers.
        gateway: address of nginx's status page.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        upstream: Upstream,
        counts: Path,
        answers: GatewayAnswers,
        gateway: str,
    ) -> None:
        self._session = session
        self._upstream = upstream
        self._counts = counts
        self._answers = answers
        self._gateway = gateway

    async def answer(self, _request: web.Request) -> web.Response:
        """Answer ``GET /metrics``."""
        return web.Response(body=await self.page(), headers={"Content-Type": CONTENT_TYPE})

    async def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        models, status = await asyncio.gather(self._models(), self._status())
        counted = await asyncio.to_thread(worker_counts.read, self._counts)
        answers = await asyncio.to_thread(self._answers.families)
        if models is not None:
            # A version that is no longer served has counts, which stay what they are, but is no fact of the present.
            served = {(model["modelName"], model["modelVersion"]) for model in models}
            for family in counted:
                if family.kind == "gauge":
                    family.samples = [each for each in family.samples if _version(each) in served]
        return render([*counted, *torchserve_families(models), *answers, *nginx_families(status)])

    async def _models(self) -> list[dict[str, Any]] | None:
        try:
            return await asyncio.wait_for(self._upstream.described(), _TIMEOUT)
        except (CallError, aiohttp.ClientError, asyncio.TimeoutError):
            return None

    async def _status(self) -> str | None:
        try:
            async with self._session.get(self._gateway, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return None


def _version(sample: Sample) -> tuple[str, str]:
    return sample.labels["model"], sample.labels["version"]


def torchserve_families(models: list[dict[str, Any]] | None) -> list[Family]:
    """What the management API tells.

    Args:
        models: its description of every version of every model; ``None`` if it does not answer.
    """
    up = gauge("fashion_torchserve_up", "1 if the management API answers.", float(models is not None))
    ready = gauge("fashion_workers_ready", "Workers that take requests.")
    wanted = gauge("fashion_workers_wanted", "Workers that there should be at least.")
    queued = gauge("fashion_queue_requests", "Requests that wait for a worker.")
    capacity = gauge("fashion_queue_capacity", "Requests that can wait at once; the next is refused.")
    for model in models or []:
        labels = {"model": model["modelName"], "version": model["modelVersion"]}
        ready.add(sum(worker["status"] == "READY" for worker in model["workers"]), **labels)
        wanted.add(model["minWorkers"], **labels)
        queue = model["jobQueueStatus"]
        queued.add(queue["pendingRequests"], **labels)
        capacity.add(queue["pendingRequests"] + queue["remainingCapacity"], **labels)
    return [up, ready, wanted, queued, capacity]


def nginx_families(status: str | None) -> list[Family]:
    """What nginx's status page tells, by the names that nginx's own exporter gives.

    Args:
        status: the page; ``None`` if it cannot be had.
    """
    families = [gauge("nginx_up", "1 if nginx's status page answers.", float(status is not None))]
    if found := _STUB_STATUS.match(status or ""):
        for name, text in (
            ("active", "Client connections."),
            ("reading", "Connections whose request's head is being read."),
            ("writing", "Connections whose request is being answered."),
            ("waiting", "Idle client connections."),
        ):
            families.append(gauge(f"nginx_connections_{name}", text, float(found[name])))
        for name, metric, text in (
            ("accepted", "nginx_connections_accepted", "Accepted client connections."),
            ("handled", "nginx_connections_handled", "Handled client connections; fewer where a limit was reached."),
            ("requests", "nginx_http_requests_total", "Requests of clients."),
        ):
            family = Family(metric, "counter", text)
            family.add(float(found[name]))
            families.append(family)
    return families
