"""Order, failure and state of the service's parts, with small processes in the place of TorchServe."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import threading

import pytest

from serving import gateway, gateway_live, processes, service, settings
from serving.errors import AlreadyRunningError, ArchiveError, PortInUseError, StartError, TokenError
from serving.processes import ProcessId
from serving.service import Part
from tests import packing, ports

SLEEPS = "import time; time.sleep(600)"


@pytest.fixture
def given(tmp_path):
    store = tmp_path / "model_store"
    packing.pack(store)
    numbers = ports.free(len(settings.read({}).ports))
    return settings.read(
        {
            **{port.variable: str(number) for port, number in zip(settings.read({}).ports, numbers, strict=True)},
            "FASHION_MODEL_STORE": str(store),
            "FASHION_RUN_DIR": str(tmp_path / "run"),
            "FASHION_LOG_DIR": str(tmp_path / "logs"),
            "FASHION_START_TIMEOUT": "10",
        }
    )


@pytest.fixture
def plan(given, monkeypatch):
    """Make the service consist of these programs: name, program, probe."""

    def use(*planned) -> None:
        def parts(*_):
            return [
                Part(
                    name=name,
                    command=[sys.executable, "-c", program],
                    environment=dict(os.environ),
                    folder=given.run,
                    output=given.logs / f"{name}.log",
                    ports=(given.inference,),
                    probe=probe,
                )
                for name, program, probe in planned
            ]

        monkeypatch.setattr(service, "parts", parts)

    yield use
    service.stop(given)


def _silent(_: str) -> None:
    pass


def _ready(_) -> None:
    return None


def test_parts_start_in_order_each_when_the_one_before_is_ready(given, plan):
    seen = []

    def probe(process):
        seen.append(process.name)
        return None if seen.count(process.name) == 3 else f"{process.name} at {seen.count(process.name)}"

    plan(("first", SLEEPS, probe), ("second", SLEEPS, probe))
    said = []
    state, archives = service.start(given, said.append)
    assert seen == ["first"] * 3 + ["second"] * 3
    assert said == ["first at 1", "first at 2", "second at 1", "second at 2"]
    assert [process.name for process in state.processes] == ["first", "second"]
    assert [archive.model for archive in archives] == ["tiny"]
    assert state.whole


def test_parts_stop_in_reverse_order(given, plan, monkeypatch):
    plan(("first", SLEEPS, _ready), ("second", SLEEPS, _ready))
    state, _ = service.start(given, _silent)
    stopped = []
    stop = processes.stop
    monkeypatch.setattr(processes, "stop", lambda process, grace: stopped.append(process.name) or stop(process, grace))
    assert service.stop(given)
    assert stopped == ["second", "first"]
    assert not state.alive
    assert not state.scratch.exists()
    assert not service.stop(given)


def test_part_that_ends_shows_its_output_and_stops_the_others(given, plan):
    first = []

    def remember(process):
        first.append(process)

    plan(("first", SLEEPS, remember), ("second", "print('no luck'); exit(4)", lambda _: "trying"))
    with pytest.raises(StartError, match="second ended while starting") as raised:
        service.start(given, _silent)
    assert "no luck" in str(raised.value)
    assert not first[0].alive
    assert service.status(given).state is None


def test_part_that_is_never_ready_is_given_up(given, plan):
    plan(("first", SLEEPS, lambda _: "thinking"))
    with pytest.raises(StartError, match=r"first was not ready after 0\.2 s \(thinking\)"):
        service.start(dataclasses.replace(given, start_timeout=0.2), _silent)
    assert service.status(given).state is None


def test_running_service_is_not_started_again(given, plan):
    plan(("first", SLEEPS, _ready))
    state, _ = service.start(given, _silent)
    with pytest.raises(AlreadyRunningError, match="runs already at"):
        service.start(given, _silent)
    assert state.whole


def test_service_that_lost_a_part_is_started_anew(given, plan):
    plan(("first", SLEEPS, _ready), ("second", SLEEPS, _ready))
    before, _ = service.start(given, _silent)
    processes.stop(before.processes[0], 5)
    assert before.alive
    assert not service.status(given).ready
    after, _ = service.start(given, _silent)
    assert not before.alive
    assert after.whole


def test_state_of_processes_that_are_gone_is_cleaned_up(given, plan):
    plan(("first", SLEEPS, _ready))
    before, _ = service.start(given, _silent)
    processes.stop(before.processes[0], 5)
    assert service.status(given).state is None
    service.start(given, _silent)
    assert not before.scratch.exists()


def test_nothing_starts_when_a_port_is_taken(given, plan):
    plan(("first", SLEEPS, lambda _: pytest.fail("must not start")))
    with socket.create_server((settings.HOST, given.inference.number)), pytest.raises(PortInUseError):
        service.start(given, _silent)
    assert service.status(given).state is None


def test_state_file_names_every_process(given, plan):
    plan(("first", SLEEPS, _ready), ("second", SLEEPS, _ready))
    state, _ = service.start(given, _silent)
    written = json.loads((given.run / "service.json").read_text())
    assert [(each["name"], each["pid"]) for each in written["processes"]] == [
        (process.name, process.pid) for process in state.processes
    ]


def test_stop_where_nothing_ever_ran_makes_no_folder(given):
    assert not service.stop(given)
    assert not given.run.exists()


def test_only_what_has_ended_is_revived(given, plan):
    plan(("first", SLEEPS, _ready), ("second", SLEEPS, _ready))
    before, _ = service.start(given, _silent)
    assert service.ended(given) == []
    processes.stop(before.processes[0], 5)
    assert service.ended(given) == ["first"]
    said = []
    assert service.revive(given, said.append) == ["first"]
    assert said == ["first ended by itself; starting it again"]
    after = service.status(given).state
    assert [process.name for process in after.processes] == ["first", "second"]
    assert after.whole
    assert after.processes[0].pid != before.processes[0].pid
    assert after.processes[1] == before.processes[1]
    assert service.revive(given, said.append) == []


def test_only_the_frontend_needs_archives_to_be_revived(given, plan, monkeypatch):
    plan(("first", SLEEPS, _ready), (service.FRONTEND, SLEEPS, _ready))
    before, _ = service.start(given, _silent)

    def gone(*_):
        raise ArchiveError("the model store is gone")

    monkeypatch.setattr(service, "live_archives", gone)
    processes.stop(before.processes[0], 5)
    assert service.revive(given, _silent) == ["first"]
    processes.stop(before.processes[1], 5)
    with pytest.raises(ArchiveError):
        service.revive(given, _silent)


def test_a_frontend_answers_whatever_proxy_there_is(given, monkeypatch):
    monkeypatch.setattr(service, "_SAYS", 0.5)
    (nobody,) = ports.free(1)
    monkeypatch.setenv("HTTP_PROXY", f"http://{settings.HOST}:{nobody}")
    assert not service.answers(given)
    with socket.create_server((settings.HOST, given.inference.number)) as listening:
        # Connections are taken by the system, and nobody says anything.
        assert not service.answers(given)

        def refuse():
            # The one above, which has given up, and the next.
            for _ in range(2):
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

        refusing = threading.Thread(target=refuse, daemon=True)
        refusing.start()
        assert service.answers(given)
        refusing.join()


def test_revived_part_keeps_what_it_said_before(given, plan):
    plan(("first", "print('hello', flush=True);" + SLEEPS, _ready))
    state, _ = service.start(given, _silent)
    output = given.logs / "first.log"
    assert processes.wait_until(lambda: output.read_text() == "hello\n", 10)
    processes.stop(state.processes[0], 5)
    service.revive(given, _silent)
    assert processes.wait_until(lambda: output.read_text() == "hello\nhello\n", 10)


def test_part_that_is_not_revived_is_stopped_again(given, plan):
    attempts = []

    def probe(process):
        attempts.append(process)
        return None if len(attempts) == 1 else "thinking"

    plan(("first", SLEEPS, probe))
    state, _ = service.start(given, _silent)
    processes.stop(state.processes[0], 5)
    with pytest.raises(StartError, match="was not ready"):
        service.revive(dataclasses.replace(given, start_timeout=0.2), _silent)
    assert not attempts[-1].alive
    assert service.ended(given) == ["first"]


def test_nothing_is_revived_where_nothing_runs(given, plan):
    plan(("first", SLEEPS, _ready))
    service.start(given, _silent)
    service.stop(given)
    assert service.ended(given) is None
    assert service.revive(given, _silent) == []


def test_process_added_to_a_stopped_service_is_stopped(given, plan):
    plan(("first", SLEEPS, _ready))
    service.start(given, _silent)
    service.stop(given)
    late = processes.spawn("late", [sys.executable, "-c", SLEEPS], os.environ, given.run, given.run / "late.log")
    service.add(given, late)
    assert not late.alive
    assert service.status(given).state is None


def test_part_is_asked_to_end_by_its_own_signal(given, plan, monkeypatch):
    program = (
        "import signal, time; signal.signal(signal.SIGQUIT, lambda *_: (print('asked', flush=True), exit()));"
        "print('set', flush=True); time.sleep(600)"
    )
    output = given.logs / "first.log"
    plan(("first", program, lambda _: None if output.read_text() else "starting"))
    planned = service.parts()
    monkeypatch.setattr(service, "parts", lambda *_: [dataclasses.replace(planned[0], stop_signal=signal.SIGQUIT)])
    service.start(given, _silent)
    service.stop(given)
    assert output.read_text() == "set\nasked\n"


def test_the_gateway_learns_torchserves_new_key_before_the_workers_are_there(given, monkeypatch, tmp_path):
    doing = ["waiting for workers"]
    monkeypatch.setattr(service, "FrontendProbe", lambda *_: lambda _: doing[0])
    asked = dataclasses.replace(given, tokens=True)
    asked.run.mkdir()
    process = ProcessId(service.FRONTEND, os.getpid(), 0.0)
    probe = service.frontend(asked, [], tmp_path).probe
    assert probe(process) == "waiting for workers"
    assert not gateway.live_folder(asked).exists()
    asked.key_file.write_text(json.dumps({"inference": {"key": "fresh"}}))
    assert probe(process) == "waiting for workers"
    assert "Bearer fresh" in (gateway.live_folder(asked) / gateway_live.NAME).read_text()
    asked.key_file.unlink()
    doing[0] = None
    with pytest.raises(TokenError):
        probe(process)
