"""Start order, restarts, and stop of the service's parts, tested with small Python programs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from serving import files
from serving.errors import AlreadyRunningError, ArchiveError, PortInUseError, ServingError, StartError
from serving.polling import wait_until
from serving.settings import HOST, ROOT
from serving.settings import read as read_settings
from serving.store import live
from serving.supervisor import parts, restarts, service, state, supervisor
from serving.supervisor.child import Child
from serving.supervisor.parts import Part
from serving.supervisor.supervisor import Supervisor
from tests.support import free_ports, packing

TIMEOUT = 20
SLEEPS = "import time; time.sleep(600)"
# Prints "set" when it handles signals, and the time of its end.
ENDS = """
import signal, sys, time
def end(*_):
    print(time.monotonic(), flush=True)
    sys.exit()
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, end)
print("set", flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); time.sleep(600)"
)
# Has a child process that survives it.
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); time.sleep(600)"


@pytest.fixture
def settings(tmp_path):
    store = tmp_path / "model_store"
    packing.pack(store)
    base = read_settings({}).ports
    return read_settings(
        {
            **{port.variable: str(number) for port, number in zip(base, free_ports.find(len(base)), strict=True)},
            "FASHION_MODEL_STORE": str(store),
            "FASHION_RUN_DIR": str(tmp_path / "run"),
            "FASHION_LOG_DIR": str(tmp_path / "logs"),
            "FASHION_START_TIMEOUT": "10",
            "FASHION_HANG_TIMEOUT": "0.3",
            "FASHION_BACKOFF": "0.2",
        }
    )


@pytest.fixture
def part(settings):
    """A function that describes a part with one Python program."""

    def make(name, program=SLEEPS, **changes):
        fields = {
            "command": [sys.executable, "-c", program],
            "folder": settings.run,
            "output": settings.logs / f"{name}.log",
            "probe": lambda: None,
            "answers": lambda: True,
            **changes,
        }
        return lambda _: Part(name=name, **fields)

    return make


@pytest.fixture
def supervise(settings, monkeypatch):
    """A function that runs a supervisor of some parts during a scenario, and returns its reports."""

    def run(makers, scenario=None):
        reports: list[str] = []
        monkeypatch.setattr(parts, "plan", lambda *_: makers)

        async def play():
            running_supervisor = Supervisor(settings, reports.append)
            ready = asyncio.Event()
            running = asyncio.create_task(running_supervisor.run(ready.set))
            begun = asyncio.create_task(ready.wait())
            await asyncio.wait([running, begun], return_when=asyncio.FIRST_COMPLETED)
            try:
                if scenario and ready.is_set():
                    await scenario(running_supervisor)
            finally:
                begun.cancel()
                running_supervisor.stop()
                await running

        asyncio.run(play())
        return reports

    return run


async def until(condition):
    """Wait for a condition without blocking the supervisor's event loop."""
    assert await asyncio.to_thread(wait_until, condition, TIMEOUT)


def written_state(settings):
    """What the supervisor has written, which must be there."""
    written = state.read(settings)
    assert written is not None
    return written


def running_pid(settings):
    running = state.running(settings)
    return running and running.pid


def pids(settings):
    return written_state(settings).processes


def alive(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_parts_start_in_order_each_when_the_one_before_is_ready(settings, part, supervise):
    seen = []

    def probing(name):
        def probe():
            seen.append(name)
            # A process that runs is not yet ready.
            assert name not in written_state(settings).ready
            return None if seen.count(name) == 3 else f"{name} at {seen.count(name)}"

        return probe

    async def scenario(_):
        assert pids(settings).keys() == {"first", "second"}
        assert written_state(settings).ready == ["first", "second"]
        assert all(map(alive, pids(settings).values()))
        assert live.read(settings.run)["tiny"].version == "1.0"

    reports = supervise([part("first", probe=probing("first")), part("second", probe=probing("second"))], scenario)
    assert seen == ["first"] * 3 + ["second"] * 3
    assert reports == ["first at 1", "first at 2", "second at 1", "second at 2"]


def test_parts_that_face_callers_stop_first_and_the_others_in_parallel(settings, part, supervise):
    def probe(name):
        return lambda: None if "set" in (settings.logs / f"{name}.log").read_text() else "starting"

    supervise(
        [
            part("engine", ENDS, probe=probe("engine")),
            part("gateway", ENDS, probe=probe("gateway"), faces_callers=True, stop_signal=signal.SIGQUIT),
            part("stubborn", STUBBORN, probe=probe("stubborn"), faces_callers=True),
        ],
    )
    ended = {name: float((settings.logs / f"{name}.log").read_text().split()[-1]) for name in ("engine", "gateway")}
    assert ended["gateway"] < ended["engine"]
    assert not state.path(settings).exists()


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(supervisor, "_CALLERS_GRACE_S", 1.0)


def test_part_that_ends_while_starting_shows_its_output_and_stops_the_others(settings, part, supervise):
    first = []
    makers = [
        part("first", probe=lambda: first.append(pids(settings)["first"])),
        part("second", "print('no luck'); exit(4)", probe=lambda: "trying"),
    ]
    with pytest.raises(StartError, match="second ended while starting") as raised:
        supervise(makers)
    assert "no luck" in str(raised.value)
    assert not alive(first[0])
    assert state.running(settings) is None
    assert not state.path(settings).exists()


def test_start_fails_when_a_part_is_never_ready(settings, part, supervise):
    object.__setattr__(settings, "start_timeout", 0.2)
    with pytest.raises(StartError, match=r"first was not ready after 0\.2 s \(thinking\)"):
        supervise([part("first", probe=lambda: "thinking")])


def test_an_interrupted_start_leaves_nothing(settings, part, monkeypatch):
    monkeypatch.setattr(parts, "plan", lambda *_: [part("first", probe=lambda: "thinking")])

    async def play():
        starting = Supervisor(settings, lambda _: None)
        running = asyncio.create_task(starting.run(lambda: pytest.fail("never ready")))
        await until(lambda: (pids(settings) if state.read(settings) else {}).get("first"))
        pid = pids(settings)["first"]
        starting.stop()
        await running
        assert not alive(pid)

    asyncio.run(play())
    assert not state.path(settings).exists()


def test_a_start_that_is_canceled_while_it_spawns_leaves_no_process_of_its_group(settings, part):
    """As a stop during a restart cancels it."""
    started = settings.run / "started"
    program = f"""
import subprocess, sys, time
from pathlib import Path
process = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}])
Path({str(started)!r}).write_text(str(process.pid))
time.sleep(600)
"""
    settings.run.mkdir()

    async def play():
        child = Child(part("first", program), settings, lambda _: None, lambda: None)
        starting = asyncio.create_task(child.start())
        # The event loop is blocked meanwhile, so that the start cannot continue before it is canceled.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert wait_until(lambda: started.exists() and started.read_text() != "", TIMEOUT)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(play())
    assert wait_until(lambda: not alive(int(started.read_text())), TIMEOUT)


def test_nothing_starts_when_a_port_is_taken(settings, part, supervise):
    with (
        socket.create_server((HOST, settings.inference.number)),
        pytest.raises(PortInUseError, match=rf"port {settings.inference.number} \(inference\).*FASHION_INFERENCE_PORT"),
    ):
        supervise([part("first", probe=lambda: pytest.fail("must not start"))])


def test_a_second_supervisor_is_refused_and_the_first_continues(settings, part, supervise):
    async def scenario(_):
        with pytest.raises(AlreadyRunningError, match="is already running"):
            await Supervisor(settings, lambda _: None).run(lambda: None)
        assert running_pid(settings) == os.getpid()
        assert all(map(alive, pids(settings).values()))

    supervise([part("first")], scenario)


def test_a_part_that_ends_is_restarted_alone_and_its_process_group_is_killed(settings, part, supervise):
    async def scenario(_):
        before = pids(settings)
        await until(lambda: psutil.Process(before["second"]).children())
        (child,) = psutil.Process(before["second"]).children()
        os.kill(before["second"], signal.SIGKILL)
        await until(lambda: pids(settings)["second"] not in (None, before["second"]))
        assert pids(settings)["first"] == before["first"]
        await until(lambda: not alive(child.pid))

    reports = supervise([part("first"), part("second", PARENT)], scenario)
    assert reports[0] == "second ended unexpectedly (SIGKILL); restarting it"
    assert reports[1].startswith("second ready again after ")


def test_restarts_back_off_and_continue_after_any_error(settings, part, supervise):
    def full():
        raise OSError(28, "No space left on device")

    def gone():
        raise ArchiveError("the archive is gone")

    errors, attempts = [full, gone, full, gone], list[float]()
    made = part("first")

    def make(report):
        # The first call is that of the start.
        if attempts:
            attempts.append(time.monotonic())
            if errors:
                errors.pop(0)()
        else:
            attempts.append(0.0)
        return made(report)

    async def scenario(_):
        os.kill(pids(settings)["first"], signal.SIGKILL)
        await until(lambda: not errors and pids(settings)["first"])

    reports = supervise([make], scenario)
    assert [line for line in reports if "attempt" in line] == [
        f"first: restart attempt {number} failed: the archive is gone" for number in (2, 4)
    ]
    waits = [attempts[number + 1] - attempts[number] for number in range(1, len(attempts) - 1)]
    # 0.2 s, then doubled each time.
    assert all(wait >= 0.2 * 2**number for number, wait in enumerate(waits))
    assert len(attempts) == 1 + 5


def test_the_backoff_has_a_limit(settings, part, supervise, monkeypatch):
    monkeypatch.setattr(restarts, "_BACKOFF_LIMIT_S", 0.0)
    attempts = []
    made = part("first")

    def make(report):
        attempts.append(report)
        if 1 < len(attempts) < 12:
            raise ArchiveError("not yet")
        return made(report)

    async def scenario(_):
        os.kill(pids(settings)["first"], signal.SIGKILL)
        await until(lambda: len(attempts) == 12 and pids(settings)["first"])

    supervise([make], scenario)


def test_only_a_hung_part_is_killed(settings, part, supervise):
    hung = []

    async def scenario(_):
        before = pids(settings)
        hung.append(True)
        await until(lambda: pids(settings)["second"] not in (None, before["second"]))
        hung.clear()
        assert pids(settings)["first"] == before["first"]

    reports = supervise([part("first"), part("second", STUBBORN, answers=lambda: not hung)], scenario)
    assert reports[0] == "second did not answer for 0.3 s and was killed; restarting it"


def test_a_state_that_cannot_be_written_stops_nothing(settings, part, supervise):
    def full(*_args):
        raise OSError(28, "No space left on device")

    async def scenario(_):
        first = pids(settings)["first"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "write_atomically", full)
            os.kill(first, signal.SIGKILL)
            await until(lambda: not alive(first))
            await asyncio.sleep(0.2)
        os.kill(pids(settings)["second"], signal.SIGKILL)
        # The next change is written.
        await until(lambda: pids(settings)["first"] not in (None, first))

    supervise([part("first"), part("second")], scenario)


def test_setting_the_clock_changes_nothing(settings, part, supervise, monkeypatch):
    """An hour forward and back: timeouts and process identities must not depend on the clock."""
    now = time.time

    async def scenario(_):
        before = pids(settings)
        for hours in (1, -1):
            monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
            monkeypatch.setattr(psutil, "boot_time", lambda hours=hours: 3600.0 * hours)
            # Longer than the hang timeout.
            await asyncio.sleep(2 * settings.hang_timeout)
            assert pids(settings) == before
            assert running_pid(settings) == os.getpid()

    assert supervise([part("first"), part("second")], scenario) == []


def test_parts_end_with_a_killed_supervisor_and_the_next_start_succeeds(settings):
    program = f"""
import sys
from serving.settings import read
from serving.supervisor import parts, supervisor
from serving.supervisor.child import Child
from serving.supervisor.parts import Part
def make(_):
    return Part(name="first", command=[sys.executable, "-c", {SLEEPS!r}], environment={{}},
                output=settings.log("first.log"), probe=lambda: None, answers=lambda: True)
settings = read()
parts.plan = lambda *_: [make]
supervisor.run(settings, print, lambda: print("ready", flush=True))
"""
    environment = {
        **os.environ,
        **{port.variable: str(port.number) for port in settings.ports},
        "FASHION_MODEL_STORE": str(settings.model_store),
        "FASHION_RUN_DIR": str(settings.run),
        "FASHION_LOG_DIR": str(settings.logs),
    }

    def begin():
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    first = begin()
    pid, scratch = pids(settings)["first"], Path(written_state(settings).scratch)
    first.kill()
    first.communicate()
    assert wait_until(lambda: not alive(pid), TIMEOUT)
    assert state.running(settings) is None
    second = begin()
    assert not scratch.exists()
    assert running_pid(settings) == second.pid
    assert service.stop(settings)
    assert second.communicate(timeout=TIMEOUT) == ("", None)
    assert second.returncode == 0
    assert not service.stop(settings)


def test_invalid_state_counts_as_none(settings):
    settings.run.mkdir()
    for text in ("", "{", '{"pid": 1}', json.dumps([])):
        state.path(settings).write_text(text)
        assert state.read(settings) is None
        assert state.running(settings) is None
        assert not service.stop(settings)


def test_stop_without_a_service_creates_no_folder(settings):
    assert not service.stop(settings)
    assert service.status(settings).state is None
    assert not settings.run.exists()


def test_a_start_shows_the_end_of_the_log_of_a_supervisor_that_died(settings, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named serving\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ServingError, match=r"ended during the start; last lines of \S+:\nno module named serving"):
        service.start(settings, print)
