"""The command line ``python -m serving``: start, stop, and status of the service, and rollouts of its models.

Exit codes: 0 success, or ready; 1 error, or running but not ready; 2 wrong usage; 3 not running (only ``status``).
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

from serving import Report
from serving.errors import ServingError
from serving.rollout import commands as rollout_commands
from serving.settings import ROOT, Settings, help_text
from serving.settings import read as read_settings
from serving.store.archives import Archive
from serving.supervisor import control, parts, service, state, supervisor
from serving.supervisor.service import Status
from serving.supervisor.status import version_table
from serving.torchserve import jvm

EXAMPLE = ROOT / "examples" / "ankle_boot.png"

NOT_READY = 1
NOT_RUNNING = 3

_console = Console(highlight=False, soft_wrap=True)


@contextmanager
def _progress(changes: bool = True) -> Iterator[Report]:
    """On a terminal, one line that is rewritten; elsewhere a line for each change, or none."""
    if not _console.is_terminal:
        yield lambda status: _print(f"{status} ...") if changes else None
        return
    with _console.status("starting") as line:
        yield line.update


def example_command(settings: Settings, archives: Sequence[Archive]) -> str:
    """A curl command for one prediction, which works in the current folder."""
    images = [archive for archive in archives if archive.signature.input.kind == "image"]
    archive = (images or list(archives))[0]
    # With API keys or TLS, use TorchServe's own port: the command stays short, and shows no key.
    plain_gateway = not settings.api_keys and not settings.certificates
    url = f"{settings.gateway_url if plain_gateway else settings.inference.url}/predictions/{archive.model}"
    if images:
        here = Path.cwd()
        example = EXAMPLE.relative_to(here) if EXAMPLE.is_relative_to(here) else EXAMPLE
        return f"curl {url} -H 'Content-Type: image/png' --data-binary {shlex.quote(f'@{example}')}"
    zeros = ", ".join(["0.0"] * archive.signature.input.shape[0])
    return f"curl {url} -H 'Content-Type: application/json' --data '[{zeros}]'"


def _addresses(settings: Settings) -> list[tuple[str, str]]:
    """The addresses of the service, those for callers first."""
    return [
        ("gateway", settings.gateway_url),
        ("inference", settings.inference.url),
        ("gRPC", settings.grpc.address),
        ("management", settings.management.url),
        ("metrics", settings.gateway_status.url + "/metrics"),
    ]


def _print(text: str) -> None:
    _console.print(text, markup=False)


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run by ``make serve``: show the status of a running service, or start it."""
    status = service.status(settings)
    if status.ready:
        _show(status, settings)
        _print("The service is already running; to load new archives, run: make restart")
        return 0
    if not jvm.cache_path().is_file():
        _print("Creating Java's class cache; this happens once and takes 10 to 20 s")
        jvm.record_class_cache(settings)
    return _start(arguments, settings)


def _start(arguments: argparse.Namespace, settings: Settings) -> int:
    # Report a damaged archive before anything starts, and before a restart stops the service.
    archives = parts.live_archives(settings, _print)
    if arguments.command == "restart":
        service.stop(settings)
    begun = time.monotonic()

    def ready() -> None:
        names = ", ".join(f"{archive.model} {archive.version}" for archive in archives)
        _print(f"Ready after {time.monotonic() - begun:.1f} s: {names}")
        for name, address in (*_addresses(settings), ("logs", settings.logs)):
            _print(f"  {name:<11} {address}")
        _print(f"Try: {example_command(settings, archives)}")

    if arguments.foreground:
        supervisor.run(settings, _print, ready)
        _print("stopped")
        return 0
    with _progress(changes=arguments.command != "serve") as report:
        service.start(settings, report)
    ready()
    return 0


def _stop(_: argparse.Namespace, settings: Settings) -> int:
    _print("stopped" if service.stop(settings) else "the service is not running")
    return 0


def _megabytes(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).memory_info().rss / 1e6:.0f} MB"
    except (psutil.Error, ValueError):
        return "-"


def _show(status: Status, settings: Settings) -> None:
    assert status.state is not None
    table = Table("process", "pid", "memory", "state")
    for name, pid in {"supervisor": status.state.pid, **status.state.processes}.items():
        starting = name in status.state.processes and name not in status.state.ready
        condition = ("starting" if starting else "running") if pid else "ended"
        table.add_row(name, str(pid or "-"), _megabytes(pid) if pid else "-", condition)
    for model in status.models or []:
        for worker in model.workers:
            name = f"{model.name} {model.version}, worker {worker.id}{' (GPU)' * worker.gpu}"
            table.add_row(name, str(worker.pid), _megabytes(worker.pid), "ready" if worker.ready else "loading")
    _console.print(table)
    _console.print(version_table(settings, status.models or []))
    addresses = Table("API", "address")
    for name, address in _addresses(settings):
        addresses.add_row(name, address)
    _console.print(addresses)


def _status(_: argparse.Namespace, settings: Settings) -> int:
    status = service.status(settings)
    if status.state is None:
        _print("the service is not running")
        return NOT_RUNNING
    _show(status, settings)
    uptime = time.monotonic() - status.state.started
    if status.models is None:
        _print("not ready: the management API does not answer")
    else:
        _print(f"{'ready' if status.ready else 'not ready'}, started {uptime:.0f} s ago")
    return 0 if status.ready else NOT_READY


def _prepare(_: argparse.Namespace, settings: Settings) -> int:
    _print(f"TorchServe's class cache: {jvm.record_class_cache(settings)}")
    return 0


def _roll_out(arguments: argparse.Namespace, settings: Settings) -> int:
    with _progress() as report:
        result = control.request(state.running(settings), vars(arguments), report)
    _print(result)
    return 0


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace, Settings], int], str]] = {
    "serve": (_serve, "start the service, or show its status if it is already running"),
    "start": (_start, "start the service, and wait until each model has passed its golden check"),
    "stop": (_stop, "answer the open requests, then stop the service"),
    "restart": (_start, "stop and start the service"),
    "status": (_status, "show processes, versions, and addresses; exit code 0 ready, 1 not ready, 3 not running"),
    "prepare": (_prepare, "create Java's class cache, with which TorchServe starts faster"),
}


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the stop that the first one has begun.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="The service of this machine or container.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rollout_commands.add(commands)
    for name, (_, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in ("serve", "start", "restart"):
            command.add_argument("--foreground", action="store_true", help="run until SIGTERM or Ctrl-C")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parse(argv)
    # SIGTERM and a closed terminal end a start in the same way as Ctrl-C: its processes are stopped.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run, _ = _COMMANDS.get(arguments.command, (_roll_out, ""))
        return run(arguments, read_settings())
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
