"""``python -m serving serve|start|stop|restart|status|prepare``: the local service; ``deploy`` and others: versions.

Exit codes: 0 done, or ready; 1 failed, or running but not ready; 2 wrong usage; 3 not running (``status`` alone).
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil
from rich.console import Console
from rich.table import Table

from serving import jvm, rollout_commands, service, settings, supervisor, versions
from serving.archives import Archive
from serving.errors import ServingError
from serving.service import Report, Status
from serving.settings import ROOT, Settings

EXAMPLE = ROOT / "examples" / "ankle_boot.png"

NOT_READY = 1
NOT_RUNNING = 3

_console = Console(highlight=False, soft_wrap=True)


@contextmanager
def _progress(changes: bool = True) -> Iterator[Report]:
    """A live line on a terminal; elsewhere one line for each change, or none."""
    if not _console.is_terminal:
        yield lambda doing: _console.print(f"{doing} ...", markup=False) if changes else None
        return
    with _console.status("starting") as line:
        yield line.update


def example_command(given: Settings, archives: Sequence[Archive]) -> str:
    """A curl line that gets a prediction as it is printed, typed in the current folder."""
    images = [archive for archive in archives if archive.signature.input.kind == "image"]
    archive = (images or list(archives))[0]
    # A key and a certificate of one's own would make the line long, and the key be seen.
    plain_gateway = not given.api_keys and not given.certificates
    url = f"{given.gateway_url if plain_gateway else given.inference.url}/predictions/{archive.model}"
    if images:
        here = Path.cwd()
        example = EXAMPLE.relative_to(here) if EXAMPLE.is_relative_to(here) else EXAMPLE
        return f"curl {url} -H 'Content-Type: image/png' --data-binary {shlex.quote(f'@{example}')}"
    zeros = ", ".join(["0.0"] * archive.signature.input.shape[0])
    return f"curl {url} -H 'Content-Type: application/json' --data '[{zeros}]'"


def _addresses(given: Settings) -> list[tuple[str, str]]:
    """What listens where, for people: callers' addresses first."""
    return [
        ("gateway", given.gateway_url),
        ("inference", given.inference.url),
        ("gRPC", given.grpc.address),
        ("management", given.management.url),
        ("metrics", given.metrics.url),
    ]


def _serve(given: Settings) -> int:
    """What `make serve` runs: show the service that runs already, or start one, as quickly as it can be."""
    status = service.status(given)
    if status.ready:
        _show(status, given)
        _console.print("The service runs already; 'make restart' takes up new archives.", markup=False)
        return 0
    with _progress(changes=False) as report:
        if not jvm.cache_path().is_file():
            _console.print("Preparing Java's class cache, once; it takes 10 to 20 s", markup=False)
            service.prepare(given, report)
    return _start(given, foreground=False, changes=False)


def _start(given: Settings, foreground: bool, changes: bool = True) -> int:
    begun = time.monotonic()
    with _progress(changes) as report:
        _, archives = service.start(given, report)
    try:
        names = ", ".join(f"{archive.model} {archive.version}" for archive in archives)
        _console.print(f"Ready after {time.monotonic() - begun:.1f} s: {names}", markup=False)
        for name, address in (*_addresses(given), ("logs", given.logs)):
            _console.print(f"  {name:<11} {address}", markup=False)
        _console.print(f"Try: {example_command(given, archives)}", markup=False)
        if foreground:
            supervisor.watch(given, lambda doing: _console.print(doing, markup=False))
        else:
            supervisor.begin(given)
    finally:
        if foreground:
            _on_signals(signal.SIG_IGN)
            service.stop(given)
    return 0


def _stop(given: Settings) -> int:
    _console.print("stopped" if service.stop(given) else "the service is not running", markup=False)
    return 0


def _megabytes(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).memory_info().rss / 1e6:.0f} MB"
    except (psutil.Error, ValueError):
        return "-"


def _show(status: Status, given: Settings) -> None:
    assert status.state is not None
    table = Table("process", "pid", "memory", "state")
    for process in status.state.processes:
        alive = process.alive
        table.add_row(
            process.name, str(process.pid), _megabytes(process.pid) if alive else "-", "runs" if alive else "ended"
        )
    for model in status.models or []:
        for worker in model.workers:
            name = f"{model.name} {model.version}, worker {worker.id}{' (GPU)' * worker.gpu}"
            table.add_row(name, str(worker.pid), _megabytes(worker.pid), "ready" if worker.ready else "loading")
    _console.print(table)
    _console.print(versions.table(given, status.models or []))
    addresses = Table("API", "address")
    for name, address in _addresses(given):
        addresses.add_row(name, address)
    _console.print(addresses)


def _status(given: Settings) -> int:
    status = service.status(given)
    if status.state is None:
        _console.print("the service is not running", markup=False)
        return NOT_RUNNING
    _show(status, given)
    up = time.time() - status.state.started
    if status.models is None:
        _console.print("not ready: the management API does not answer", markup=False)
    else:
        _console.print(f"{'ready' if status.ready else 'not ready'}, started {up:.0f} s ago", markup=False)
    return 0 if status.ready else NOT_READY


def _prepare(given: Settings) -> int:
    with _progress() as report:
        cache = service.prepare(given, report)
    _console.print(f"TorchServe's class cache: {cache}", markup=False)
    return 0


def _roll_out(asked: argparse.Namespace, given: Settings) -> int:
    with _progress() as report:
        done = rollout_commands.run(asked, given, report)
    _console.print(done, markup=False)
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once: a second Ctrl-C must not break off the stop that the first one asked for.
    _on_signals(signal.SIG_IGN)
    raise KeyboardInterrupt


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _variables() -> str:
    defaults = settings.read({})
    described = [(port.variable, f"port: {port.name}", str(port.number)) for port in defaults.ports] + [
        ("FASHION_DEVICE_TYPE", "what workers must compute on, cpu or gpu", "a GPU where there is one"),
        ("FASHION_LISTEN", "address to listen on", defaults.listen),
        ("FASHION_TORCHSERVE_HOST", "where TorchServe is found", defaults.inference.host),
        ("FASHION_FRONTDOOR_HOST", "where the front door is found", defaults.frontdoor.host),
        ("FASHION_GATEWAY_HOST", "where the gateway's status is found", defaults.gateway_status.host),
        ("FASHION_GRPC_HOST", "where the gRPC bridge is found", defaults.grpc.host),
        ("FASHION_MODEL_STORE", "folder of the archives", str(defaults.model_store)),
        ("FASHION_RUN_DIR", "folder of the running service's state", str(defaults.run)),
        ("FASHION_LOG_DIR", "folder of its logs", str(defaults.logs)),
        ("FASHION_COUNTS_DIR", "folder in which workers count what they do", str(defaults.counts)),
        ("FASHION_API_KEYS", "file of the keys that the gateway asks for", "none, so anybody may ask"),
        ("FASHION_CERTIFICATES", "folder of gateway.crt and gateway.key", "none, so no TLS"),
        ("FASHION_NGINX", "which nginx: system, wheel or a path", "the system's if new enough, else the wheel's"),
        ("FASHION_RATE_LIMIT", "requests a second that one client may send to the gateway", "any number"),
        ("FASHION_TOKENS", "1 has TorchServe ask for tokens of its own on every API", "0"),
        ("FASHION_START_TIMEOUT", "seconds that one process may take to be ready", f"{defaults.start_timeout:g}"),
        ("FASHION_HANG_TIMEOUT", "seconds of silence after which TorchServe is killed", f"{defaults.hang_timeout:g}"),
        ("FASHION_BACKOFF", "seconds before the second of five attempts to restart a part", f"{defaults.backoff:g}"),
    ]
    lines = [f"  {name:<32} {meaning} (default {default})" for name, meaning, default in described]
    return "\n".join(["environment variables:", *lines])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="The local service.",
        epilog=_variables(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "start as quickly as it can be, or show the service that runs already"),
        ("start", "start, and wait until every model answers rightly"),
        ("stop", "stop, and leave nothing behind"),
        ("restart", "stop, then start"),
        ("status", "what runs: exit code 0 ready, 1 not ready, 3 not running"),
        ("prepare", "make the class cache that brings TorchServe up sooner"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name in ("start", "restart"):
            command.add_argument(
                "--foreground", action="store_true", help="stay, and stop everything on SIGTERM or Ctrl-C"
            )
    rollout_commands.add(commands)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    asked = _parse(arguments)
    # SIGTERM and a closed terminal end a start the way Ctrl-C does: what it had started is stopped.
    _on_signals(_interrupt)
    try:
        given = settings.read()
        if asked.command == "serve":
            return _serve(given)
        if asked.command == "stop":
            return _stop(given)
        if asked.command == "status":
            return _status(given)
        if asked.command == "prepare":
            return _prepare(given)
        if asked.command in rollout_commands.NAMES:
            return _roll_out(asked, given)
        if asked.command == "restart":
            # What could not start again must go on.
            service.live_archives(given, lambda _: None)
            service.stop(given)
        return _start(given, asked.foreground)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0 if getattr(asked, "foreground", False) else 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
