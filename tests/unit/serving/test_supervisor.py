"""Order, failure and end of the service's parts, with small processes in the place of the real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving import files, settings
from serving.errors import AlreadyRunningError, ArchiveError, PortInUseError, StartError
from serving.polling import wait_until
from serving.settings import HOST, ROOT
from serving.store import live
from serving.supervisor import parts, service, state, supervisor
from serving.supervisor.parts import Part
from serving.supervisor.supervisor import Supervisor
from tests.support import free_ports, packing

TIMEOUT = 20
SLEEPS = "import time; time.sleep(600)"
# Says when it can be asked to end, and in what order that comes.
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
# Starts a child that outlives it.
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); time.sleep(600)"


@pytest.fixture
def given(tmp_path):
    store = tmp_path / "model_store"
    packing.pack(store)
    base = settings.read({}).ports
    return settings.read(
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
def part(given):
    """Makes a part of one Python program."""

    def make(name, program=SLEEPS, **changes):
        described = {
            "command": [sys.executable, "-c", program],
            "environment": dict(os.environ),
            "folder": given.run,
            "output": given.logs / f"{name}.log",
            "probe": lambda: None,
            "answers": lambda: True,
            **changes,
        }
        return lambda _: Part(name=name, **described)

    return make


@pytest.fixture
def supervise(given, monkeypatch):
    """Runs a supervisor of these parts until a scenario, which gets it, is over; what was reported."""

    def run(makers, scenario=None):
        said = []
        monkeypatch.setattr(parts, "plan", lambda *_: makers)

        async def play():
            running_supervisor = Supervisor(given, said.append)
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
        return said

    return run


async def until(condition):
    """Wait for a condition without keeping the supervisor from its work."""
    assert await asyncio.to_thread(wait_until, condition, TIMEOUT)


def pids(given):
    return state.read(given).processes


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_parts_start_in_order_each_when_the_one_before_is_ready(given, part, supervise):
    seen = []

    def probing(name):
        def probe():
            seen.append(name)
            return None if seen.count(name) == 3 else f"{name} at {seen.count(name)}"

        return probe

    async def scenario(_):
        assert pids(given).keys() == {"first", "second"}
        assert all(map(alive, pids(given).values()))
        assert live.read(given.run)["tiny"].version == "1.0"

    said = supervise([part("first", probe=probing("first")), part("second", probe=probing("second"))], scenario)
    assert seen == ["first"] * 3 + ["second"] * 3
    assert said == ["first at 1", "first at 2", "second at 1", "second at 2"]


def test_callers_side_stops_first_and_the_rest_in_parallel(given, part, supervise):
    def asked(name):
        return lambda: None if "set" in (given.logs / f"{name}.log").read_text() else "starting"

    supervise(
        [
            part("engine", ENDS, probe=asked("engine")),
            part("gateway", ENDS, probe=asked("gateway"), faces_callers=True, stop_signal=signal.SIGQUIT),
            part("stubborn", STUBBORN, probe=asked("stubborn"), faces_callers=True),
        ],
    )
    ended = {name: float((given.logs / f"{name}.log").read_text().split()[-1]) for name in ("engine", "gateway")}
    assert ended["gateway"] < ended["engine"]
    assert not state.path(given).exists()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(supervisor, "_CALLERS_GRACE_S", 1.0)


def test_part_that_ends_while_starting_shows_its_output_and_stops_the_others(given, part, supervise):
    first = []
    makers = [
        part("first", probe=lambda: first.append(pids(given)["first"])),
        part("second", "print('no luck'); exit(4)", probe=lambda: "trying"),
    ]
    with pytest.raises(StartError, match="second ended while starting") as raised:
        supervise(makers)
    assert "no luck" in str(raised.value)
    assert not alive(first[0])
    assert state.running(given) is None
    assert not state.path(given).exists()


def test_part_that_is_never_ready_is_given_up(given, part, supervise):
    object.__setattr__(given, "start_timeout", 0.2)
    with pytest.raises(StartError, match=r"first was not ready after 0\.2 s \(thinking\)"):
        supervise([part("first", probe=lambda: "thinking")])


def test_a_start_that_is_stopped_leaves_nothing(given, part, monkeypatch):
    monkeypatch.setattr(parts, "plan", lambda *_: [part("first", probe=lambda: "thinking")])

    async def play():
        starting = Supervisor(given, lambda _: None)
        running = asyncio.create_task(starting.run(lambda: pytest.fail("never ready")))
        await until(lambda: (pids(given) if state.read(given) else {}).get("first"))
        pid = pids(given)["first"]
        starting.stop()
        await running
        assert not alive(pid)

    asyncio.run(play())
    assert not state.path(given).exists()


def test_nothing_starts_when_a_port_is_taken(given, part, supervise):
    with (
        socket.create_server((HOST, given.inference.number)),
        pytest.raises(PortInUseError, match=rf"port {given.inference.number} \(inference\).*FASHION_INFERENCE_PORT"),
    ):
        supervise([part("first", probe=lambda: pytest.fail("must not start"))])


def test_a_second_supervisor_is_refused_and_disturbs_nothing(given, part, supervise):
    async def scenario(_):
        with pytest.raises(AlreadyRunningError, match="runs already at"):
            await Supervisor(given, lambda _: None).run(lambda: None)
        assert state.running(given).pid == os.getpid()
        assert all(map(alive, pids(given).values()))

    supervise([part("first")], scenario)


def test_what_ends_is_started_again_alone_with_its_whole_group_gone(given, part, supervise):
    async def scenario(_):
        before = pids(given)
        await until(lambda: psutil.Process(before["second"]).children())
        (child,) = psutil.Process(before["second"]).children()
        os.kill(before["second"], signal.SIGKILL)
        await until(lambda: pids(given)["second"] not in (None, before["second"]))
        assert pids(given)["first"] == before["first"]
        await until(lambda: not alive(child.pid))

    said = supervise([part("first"), part("second", PARENT)], scenario)
    assert said[0] == "second ended by itself (SIGKILL); starting it again"
    assert said[1].startswith("second ready again after ")


def test_it_backs_off_and_never_gives_up_whatever_is_raised(given, part, supervise):
    def full():
        raise OSError(28, "No space left on device")

    def gone():
        raise ArchiveError("the archive is gone")

    troubles, attempts = [full, gone, full, gone], []
    made = part("first")

    def make(report):
        # The first one is the start's.
        if attempts:
            attempts.append(time.monotonic())
            if troubles:
                troubles.pop(0)()
        else:
            attempts.append(0.0)
        return made(report)

    async def scenario(_):
        os.kill(pids(given)["first"], signal.SIGKILL)
        await until(lambda: not troubles and pids(given)["first"])

    said = supervise([make], scenario)
    assert [line for line in said if "attempt" in line] == [
        f"first, attempt {number}: the archive is gone" for number in (2, 4)
    ]
    waits = [attempts[number + 1] - attempts[number] for number in range(1, len(attempts) - 1)]
    # 0.2 s, and then twice as long each time.
    assert all(wait >= 0.2 * 2**number for number, wait in enumerate(waits))
    assert len(attempts) == 1 + 5


def test_pauses_between_attempts_have_a_limit(given, part, supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "_BACKOFF_LIMIT_S", 0.0)
    attempts = []
    made = part("first")

    def make(report):
        attempts.append(report)
        if 1 < len(attempts) < 12:
            raise ArchiveError("not yet")
        return made(report)

    async def scenario(_):
        os.kill(pids(given)["first"], signal.SIGKILL)
        await until(lambda: len(attempts) == 12 and pids(given)["first"])

    supervise([make], scenario)


def test_a_part_that_is_silent_is_killed_and_one_that_answers_is_not(given, part, supervise):
    silent = []

    async def scenario(_):
        before = pids(given)
        silent.append(True)
        await until(lambda: pids(given)["second"] not in (None, before["second"]))
        silent.clear()
        assert pids(given)["first"] == before["first"]

    said = supervise([part("first"), part("second", STUBBORN, answers=lambda: not silent)], scenario)
    assert said[0] == "second has not answered for 0.3 s; ended it; starting it again"


def test_a_state_that_cannot_be_written_stops_nothing(given, part, supervise):
    def full(*_args):
        raise OSError(28, "No space left on device")

    async def scenario(_):
        first = pids(given)["first"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "write_atomically", full)
            os.kill(first, signal.SIGKILL)
            await until(lambda: not alive(first))
            await asyncio.sleep(0.2)
        os.kill(pids(given)["second"], signal.SIGKILL)
        # The next change is written again.
        await until(lambda: pids(given)["first"] not in (None, first))

    supervise([part("first"), part("second")], scenario)


def test_the_clock_may_be_set_while_it_runs(given, part, supervise, monkeypatch):
    """An hour forward and back: nothing counts by the clock, or knows a process by it."""
    now = time.time

    async def scenario(_):
        before = pids(given)
        for hours in (1, -1):
            monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
            monkeypatch.setattr(psutil, "boot_time", lambda hours=hours: 3600.0 * hours)
            # Twice as long as silence may last.
            await asyncio.sleep(2 * given.hang_timeout)
            assert pids(given) == before
            assert state.running(given).pid == os.getpid()

    assert supervise([part("first"), part("second")], scenario) == []


def test_parts_end_when_the_supervisor_is_killed_and_the_next_start_finds_nothing_left(given):
    program = f"""
import sys
from serving import settings
from serving.supervisor import parts, supervisor
from serving.supervisor.parts import Part
def make(_):
    return Part("first", [sys.executable, "-c", {SLEEPS!r}], {{}}, settings.ROOT, given.log("first.log"),
                lambda: None, lambda: True)
given = settings.read()
parts.plan = lambda *_: [make]
supervisor.run(given, print, lambda: print("ready", flush=True))
"""
    environment = {
        **os.environ,
        **{port.variable: str(port.number) for port in given.ports},
        "FASHION_MODEL_STORE": str(given.model_store),
        "FASHION_RUN_DIR": str(given.run),
        "FASHION_LOG_DIR": str(given.logs),
    }

    def begin():
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    first = begin()
    pid, scratch = pids(given)["first"], Path(state.read(given).scratch)
    first.kill()
    first.communicate()
    assert wait_until(lambda: not alive(pid), TIMEOUT)
    assert state.running(given) is None
    second = begin()
    assert not scratch.exists()
    assert state.running(given).pid == second.pid
    assert service.stop(given)
    assert second.communicate(timeout=TIMEOUT) == ("", None)
    assert second.returncode == 0
    assert not service.stop(given)


def test_state_that_cannot_be_read_is_as_good_as_none(given):
    given.run.mkdir()
    for text in ("", "{", '{"pid": 1}', json.dumps([])):
        state.path(given).write_text(text)
        assert state.read(given) is None
        assert state.running(given) is None
        assert not service.stop(given)


def test_stop_where_nothing_ever_ran_makes_no_folder(given):
    assert not service.stop(given)
    assert service.status(given).state is None
    assert not given.run.exists()
