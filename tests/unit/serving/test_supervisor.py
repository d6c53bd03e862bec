"""The watch over processes, with a service that a test makes up."""

from __future__ import annotations

import pytest

from serving import service, settings, supervisor
from serving.errors import ArchiveError, StartError


class Scripted:
    """A service that loses its process as often as a script says, and is stopped after that.

    Args:
        losses: what each attempt to start it again comes to: an error, or ``None`` when it succeeds.
    """

    def __init__(self, *losses: Exception | None) -> None:
        self._losses = list(losses)
        self._alive = False
        self.attempts = 0

    def ended(self, _given):
        if not self._losses and self._alive:
            return None
        lost, self._alive = not self._alive or bool(self._losses), False
        return ["TorchServe"] if lost else []

    def revive(self, _given, _report):
        self.attempts += 1
        error = self._losses.pop(0)
        if error:
            raise error
        self._alive = True
        return ["TorchServe"]


@pytest.fixture
def watch(monkeypatch):
    slept = []

    def run(script, **options):
        monkeypatch.setattr(service, "ended", script.ended)
        monkeypatch.setattr(service, "revive", script.revive)
        monkeypatch.setattr(supervisor.time, "sleep", slept.append)
        said = []
        try:
            supervisor.watch(settings.read({}), said.append, **options)
        finally:
            run.said, run.slept = said, slept
        return said

    return run


def test_what_ends_is_started_again(watch):
    script = Scripted(None)
    said = watch(script)
    assert script.attempts == 1
    assert [line.partition(" after")[0] for line in said] == ["ready again"]


def test_attempts_in_a_row_wait_longer_each_time(watch):
    script = Scripted(StartError("no luck"), ArchiveError("no archive"), None)
    said = watch(script, attempts=4)
    assert watch.slept == [0.0, 1.0, 2.0]
    assert said[:2] == ["attempt 1 of 4: no luck", "attempt 2 of 4: no archive"]


def test_it_gives_up_and_names_the_last_reason(watch):
    script = Scripted(StartError("first"), StartError("second"), StartError("never tried"))
    with pytest.raises(StartError, match=r"TorchServe could not be kept running after 2 attempts \(second\)"):
        watch(script, attempts=2)
    assert script.attempts == 2


def test_a_process_that_ends_again_and_again_is_given_up(watch):
    with pytest.raises(StartError, match="it ended again each time"):
        watch(Scripted(None, None, None, None), attempts=3)


def test_attempts_are_counted_anew_when_it_has_run_for_long(watch):
    script = Scripted(None, None, None, None)
    watch(script, attempts=2, settled=-1.0)
    assert script.attempts == 4


def test_a_silent_frontend_is_killed_and_one_that_answers_is_not(monkeypatch):
    now = 0.0
    killed = []

    def sleep(seconds):
        nonlocal now
        now += seconds

    def ended(_given):
        if killed and killed[-1] == now:
            return ["TorchServe"]
        return [] if now < 100 else None

    monkeypatch.setattr(supervisor.time, "sleep", sleep)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    monkeypatch.setattr(service, "ended", ended)
    # It says nothing from 30 to 45 s, and from 60 s on until it is killed; it is asked every five seconds.
    monkeypatch.setattr(service, "answers", lambda _: not (30 < now < 45 or (now > 60 and not killed)))
    monkeypatch.setattr(service, "kill_frontend", lambda _: killed.append(now))
    monkeypatch.setattr(service, "revive", lambda *_: sleep(1) or ["TorchServe"])
    said = []
    supervisor.watch(settings.read({}), said.append)
    assert len(killed) == 1
    assert 75 <= killed[0] <= 86
    assert said[0] == "TorchServe has not answered for 20 s; ending it"
