"""``python -m serving serve|start|stop|restart|status|prepare``: the service; ``deploy`` and others: its versions.

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

from serving import Report, settings
from serving.errors import ServingError
from serving.rollout import commands as rollout_commands
from serving.settings import ROOT, Settings
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
    """A live line on a terminal; elsewhere one line for each change, or none."""
    if not _console.is_terminal:
        yield lambda doing: _say(f"{doing} ...") if changes else None
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
        ("metrics", given.gateway_status.url + "/metrics"),
    ]


def _say(text: str) -> None:
    _console.print(text, markup=False)


def _serve(asked: argparse.Namespace, given: Settings) -> int:
    """What `make serve` runs: show the service that runs already, or start one, as quickly as it can be."""
    status = service.status(given)
    if status.ready:
        _show(status, given)
        _say("The service runs already; 'make restart' takes up new archives.")
        return 0
    if not jvm.cache_path().is_file():
        _say("Preparing Java's class cache, once; it takes 10 to 20 s")
        jvm.record_class_cache(given)
    return _start(asked, given)


def _start(asked: argparse.Namespace, given: Settings) -> int:
    # What cannot start is refused in one line, before anything runs, or stops for a restart.
    archives = parts.live_archives(given, _say)
    if asked.command == "restart":
        service.stop(given)
    begun = time.monotonic()

    def ready() -> None:
        names = ", ".join(f"{archive.model} {archive.version}" for archive in archives)
        _say(f"Ready after {time.monotonic() - begun:.1f} s: {names}")
        for name, address in (*_addresses(given), ("logs", given.logs)):
            _say(f"  {name:<11} {address}")
        _say(f"Try: {example_command(given, archives)}")

    if asked.foreground:
        supervisor.run(given, _say, ready)
        _say("stopped")
        return 0
    with _progress(changes=asked.command != "serve") as report:
        service.start(given, report)
    ready()
    return 0


def _stop(_: argparse.Namespace, given: Settings) -> int:
    _say("stopped" if service.stop(given) else "the service is not running")
    return 0


def _megabytes(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).memory_info().rss / 1e6:.0f} MB"
    except (psutil.Error, ValueError):
        return "-"


def _show(status: Status, given: Settings) -> None:
    assert status.state is not None
    table = Table("process", "pid", "memory", "state")
    for name, pid in {"supervisor": status.state.pid, **status.state.processes}.items():
        table.add_row(name, str(pid or "-"), _megabytes(pid) if pid else "-", "runs" if pid else "ended")
    for model in status.models or []:
        for worker in model.workers:
            name = f"{model.name} {model.version}, worker {worker.id}{' (GPU)' * worker.gpu}"
            table.add_row(name, str(worker.pid), _megabytes(worker.pid), "ready" if worker.ready else "loading")
    _console.print(table)
    _console.print(version_table(given, status.models or []))
    addresses = Table("API", "address")
    for name, address in _addresses(given):
        addresses.add_row(name, address)
    _console.print(addresses)


def _status(_: argparse.Namespace, given: Settings) -> int:
    status = service.status(given)
    if status.state is None:
        _say("the service is not running")
        return NOT_RUNNING
    _show(status, given)
    up = time.monotonic() - status.state.started
    if status.models is None:
        _say("not ready: the management API does not answer")
    else:
        _say(f"{'ready' if status.ready else 'not ready'}, started {up:.0f} s ago")
    return 0 if status.ready else NOT_READY


def _prepare(_: argparse.Namespace, given: Settings) -> int:
    _say(f"TorchServe's class cache: {jvm.record_class_cache(given)}")
    return 0


def _roll_out(asked: argparse.Namespace, given: Settings) -> int:
    with _progress() as report:
        done = control.ask(state.running(given), vars(asked), report)
    _say(done)
    return 0


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace, Settings], int], str]] = {
    "serve": (_serve, "start as quickly as it can be, or show the service that runs already"),
    "start": (_start, "start, and wait until every model answers rightly"),
    "stop": (_stop, "stop, and leave nothing behind"),
    "restart": (_start, "stop, then start"),
    "status": (_status, "what runs: exit code 0 ready, 1 not ready, 3 not running"),
    "prepare": (_prepare, "make the class cache that brings TorchServe up sooner"),
}


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once: a second Ctrl-C must not break off the stop that the first one asked for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="The service of this machine or container.",
        epilog=settings.described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rollout_commands.add(commands)
    for name, (_, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in ("serve", "start", "restart"):
            command.add_argument("--foreground", action="store_true", help="stay, and stop on SIGTERM or Ctrl-C")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    asked = _parse(arguments)
    # SIGTERM and a closed terminal end a start the way Ctrl-C does: what it had started is stopped.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run, _ = _COMMANDS.get(asked.command, (_roll_out, ""))
        return run(asked, settings.read())
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
