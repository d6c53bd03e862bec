"""A place for one service in tests: free ports, its own folders, and the commands of ``python -m serving``."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving import __main__ as command
from serving import settings
from serving.polling import wait_until
from serving.ports import is_free as port_is_free
from serving.settings import ROOT, Settings
from serving.supervisor import state
from tests.support import free_ports, guard

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Place:
    """A place for one service: its environment variables, and the settings that the service reads from them."""

    environment: dict[str, str]
    settings: Settings

    @property
    def inference(self) -> str:
        """URL of TorchServe's inference API."""
        return self.settings.inference.url

    @property
    def management(self) -> str:
        """URL of TorchServe's management API."""
        return self.settings.management.url

    @property
    def metrics(self) -> str:
        """URL of TorchServe's metrics API."""
        return self.settings.metrics.url

    @property
    def gateway(self) -> str:
        """URL of the gateway."""
        return self.settings.gateway.url

    @property
    def grpc(self) -> str:
        """Address of the Open Inference Protocol over gRPC, ``host:port``."""
        return self.settings.grpc.address

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``python -m serving`` in this process, which saves the imports. Only for the main thread.

        Args:
            arguments: of the command.
            environment: further variables.
        """
        output, errors = io.StringIO(), io.StringIO()
        variables = {**self.environment, **environment}
        with _environment(variables), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = command.main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of ``python -m serving`` in the background, with a pipe as its output."""
        return subprocess.Popen(
            [sys.executable, "-m", "serving", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self) -> None:
        """Start the service; fail the test if it does not start."""
        started = self.run("start")
        assert started.returncode == 0, started.stdout + started.stderr

    def end(self) -> None:
        """Kill all processes, which is faster than a stop, and remove the scratch folder."""
        if "COVERAGE_PROCESS_CONFIG" in os.environ:
            # A killed process writes no coverage data.
            self.run("stop")
        path = state.path(self.settings)
        scratch = json.loads(path.read_text())["scratch"] if path.exists() else None
        mine = "FASHION_RUN_DIR", self.environment["FASHION_RUN_DIR"], str(self.settings.run)
        assert wait_until(lambda: not guard.kill(*mine) and not guard.kill(*mine), 30), guard.belonging(*mine)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """All running processes that have inherited the variables of this place, workers included."""
        matches = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.environ().get("FASHION_RUN_DIR") == self.environment["FASHION_RUN_DIR"]
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    matches.append(process)
        return matches

    def workers(self) -> list[psutil.Process]:
        """TorchServe's workers among ``processes``."""
        matches = []
        for process in self.processes():
            # The process may have ended.
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                # A forked worker, or one that was started without a fork server; not a launcher.
                if process.name() == "worker" or ("model_service_worker" in words and "launcher.py" not in words):
                    matches.append(process)
        return matches

    def pid(self, name: str) -> int:
        """The pid of one part of the service; 0 while it is not running."""
        return int(self.state()["processes"][name] or 0)

    def supervisor(self) -> psutil.Process:
        """The supervisor's process."""
        return psutil.Process(self.state()["pid"])

    def process(self, name: str) -> psutil.Process:
        """The process of one part of the service."""
        return psutil.Process(self.pid(name))

    def state(self) -> dict[str, Any]:
        """The content of ``run/service.json``."""
        content: dict[str, Any] = json.loads(state.path(self.settings).read_text())
        return content

    def assert_no_process(self) -> None:
        """No process of the service is left. The supervisor's may take a moment to exit."""
        assert wait_until(lambda: not self.processes(), 5), self.processes()

    def assert_nothing_left(self, scratch: str) -> None:
        """No process, listener, state, or temporary file of the service is left."""
        self.assert_no_process()
        assert all(port_is_free(port.host, port.number) for port in self.settings.ports)
        assert not state.path(self.settings).exists()
        assert not Path(scratch).exists()


class Elsewhere(Place):
    """A service that is already running, with access to its gateway only."""

    @property
    def inference(self) -> str:
        """The gateway, which answers like TorchServe."""
        return self.gateway


def make_place(folder: Path, model_store: Path, **environment: str) -> Place:
    """A place with free ports, its own folders below ``folder``, and further variables."""
    base = settings.read({})
    numbers = free_ports.find(len(base.ports))
    variables = {
        **os.environ,
        **{port.variable: str(number) for port, number in zip(base.ports, numbers, strict=True)},
        "FASHION_MODEL_STORE": str(model_store),
        "FASHION_RUN_DIR": str(folder / "run"),
        "FASHION_LOG_DIR": str(folder / "logs"),
        **environment,
    }
    return Place(variables, settings.read(variables))


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Replace this process's environment, and restore its signal handlers at the end."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - variables.keys():
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
