"""New versions go live, or do not, without a request lost: deploy, rollback, canary, promote, abort.

    deploy    archive whole, digest right, accurate enough ─► registered beside the live version ─► workers READY
                  ─► the known answers right ─► default version switched ─► old version idle for the grace time
                  ─► old version unregistered
    rollback  the same with the version that was live before, without asking how accurate it is
    canary    the same up to the known answers; then the gateway sends it a share of the requests
    promote   the canary becomes the default version, the split ends, the old version is drained and unregistered
    abort     the split ends, the canary is drained and unregistered

A step that fails leaves the live version as it was, unregisters what was registered, and raises. The supervisor runs
one rollout at a time (``serving/supervisor/control.py``).

Why this order (TorchServe 0.12.0): unregistering a version discards its queue, so its traffic stops first and its queue
drains. A registered version becomes the default only if the model had none.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from serving import Report, polling
from serving.errors import RolloutError, ServingError
from serving.gateway import reload
from serving.settings import Settings
from serving.store import archives, index, live
from serving.store.archives import Archive
from serving.store.index import Listed
from serving.store.live import Canary, Live
from serving.torchserve import management, readiness
from serving.torchserve.readiness import LoadingWorkers

# By how much a new version may be less accurate than the live one. On 10,000 test images the standard error of an
# accuracy of 0.9 is 0.003: half a percentage point is less than twice that.
MARGIN = 0.005
# As many known answers as training packs.
GOLDEN = 200
# Seconds that a version must have had nothing in its queue before it is unregistered: batches take milliseconds, the
# largest request of 8192 images under two seconds.
GRACE = 5.0
# Seconds after which a version that is still asked for by name is unregistered nevertheless.
_LONGEST_DRAIN = 60.0


class Rollout:
    """One change of which versions of a model are live. Each method is a command and returns what is live now.

    Args:
        given: the service's settings.
        model: the model to change.
        grace: seconds that a version must be idle before it is unregistered.
        report: told of each step; raises ``RolloutError`` where the command is broken off.

    Raises:
        ServingError: no rollout is possible here, or what runs is not what is live by ``live.json``.
    """

    def __init__(self, given: Settings, model: str, grace: float, report: Report) -> None:
        if not grace >= 0:
            raise RolloutError(f"--grace must be 0 or more seconds, got {grace:g}")
        if shutil.which("kill") is None:
            raise RolloutError("TorchServe ends workers by the program kill, which is missing; Debian: install procps")
        self._given = given
        self._model = model
        self._grace = grace
        self._report = report
        self._management = management.of_service(given)
        self._state = live.read(given.run)
        running = self._management.describe(model)
        if running:
            self._state.setdefault(model, Live(running.version))
        self._before = self._state.get(model)
        if self._before is None:
            return
        path = given.run / live.NAME
        if running is None:
            raise RolloutError(f"{model} is live by {path}, but does not run; start the service again")
        if running.version != self._before.version:
            raise RolloutError(
                f"{model} {running.version} answers, but by {path} {self._before.version} is live: somebody "
                "changed one of them by hand; start the service again, or write into the file what runs"
            )

    def deploy(self, version: str) -> str:
        """Make a version live.

        Raises:
            ServingError: it may not go live, or did not; the message says which step failed and why, and the live
                version is as it was.
        """
        before = self._before
        if before:
            self._refuse_during_canary(before)
            self._refuse_again(version, before)
        archive = self._checked(version)
        self._bring_up(archive, partial(self._switch, before.followed_by(version) if before else Live(version)))
        if before:
            self._retire(before.version)
        return f"{self._model} {version} is live"

    def rollback(self) -> str:
        """Make the version live that was live before.

        Raises:
            ServingError: as for ``deploy``; or there was none before.
        """
        before = self._known()
        self._refuse_during_canary(before)
        if not before.previous:
            what = f"no version of {self._model} was live before {before.version}"
            raise RolloutError(f"{what}: there is none to go back to")
        version = before.previous[0]
        archive = archives.read_listed(self._entry(version))
        self._bring_up(archive, partial(self._switch, Live(version, before.previous[1:])))
        self._retire(before.version)
        return f"{self._model} {version} is live"

    def canary(self, version: str, percent: float) -> str:
        """Give a version a share of the requests that ask for none; for the canary of now, another share.

        Args:
            version: the version on trial.
            percent: its share, above 0 and at most 100.

        Raises:
            ServingError: as for ``deploy``; or there is another canary.
        """
        if not 0 < percent <= 100:
            raise RolloutError(f"{percent:g} is no share: a canary gets more than 0 and at most 100 percent")
        before = self._known()
        self._refuse_again(version, before)
        if before.canary and before.canary.version != version:
            self._refuse_during_canary(before)
        after = dataclasses.replace(before, canary=Canary(version, percent))
        if before.canary:
            self._share(after)
        else:
            self._bring_up(self._checked(version), partial(self._share, after))
        return f"{self._model} {version} gets {percent:g} % of the requests that ask for no version"

    def promote(self) -> str:
        """Make the canary the live version.

        Raises:
            ServingError: there is no canary, or a step failed and everything is as it was.
        """
        before = self._known()
        trial = self._trial(before)
        running = self._management.describe(self._model, trial)
        if running is None or not running.ready:
            raise RolloutError(f"{self._model} {trial} has workers that are not ready")
        after = before.followed_by(trial)
        self._switch(after)
        # Until this is done a share goes to the same version by another way.
        self._split({**self._state, self._model: after})
        self._retire(before.version)
        return f"{self._model} {trial} is live"

    def abort(self) -> str:
        """End the canary.

        Raises:
            ServingError: there is none, or a step failed; the canary keeps its share then.
        """
        before = self._known()
        trial = self._trial(before)
        self._share(dataclasses.replace(before, canary=None))
        self._retire(trial)
        return f"{self._model} {trial} is no longer a canary"

    def _known(self) -> Live:
        if self._before is None:
            raise RolloutError(f"there is no model {self._model} in the service")
        return self._before

    def _refuse_again(self, version: str, before: Live) -> None:
        if version == before.version:
            who = f"{self._model} {version}"
            raise RolloutError(f"{who} is live already; an archive packed again is taken up by: make restart")

    def _refuse_during_canary(self, before: Live) -> None:
        if trial := before.canary:
            raise RolloutError(
                f"{self._model} {trial.version} is a canary with {trial.percent:g} % of the requests; "
                f"end that first: make promote MODEL={self._model}, or make abort MODEL={self._model}"
            )

    def _trial(self, before: Live) -> str:
        if before.canary is None:
            raise RolloutError(f"{self._model} has no canary")
        return before.canary.version

    def _entry(self, version: str) -> Listed:
        for entry in index.read(self._given.model_store):
            if (entry.model, entry.version) == (self._model, version):
                return entry
        raise RolloutError(
            f"{self._given.model_store / index.NAME} lists no {self._model} {version}; "
            f"run: make archive MODEL={self._model} VERSION={version}"
        )

    def _checked(self, version: str) -> Archive:
        """The archive, whole and accurate enough to go live."""
        who = f"{self._model} {version}"
        self._report(f"checking {who}")
        entry = self._entry(version)
        archive = archives.read_listed(entry)
        if archive.golden is None:
            raise RolloutError(f"{entry.path} holds no known answers to compare with; run: make archive")
        accuracy = _accuracy(archive)
        if not accuracy >= entry.accuracy_floor:
            raise RolloutError(f"{who} scores {accuracy:.4f}, under the catalog's floor of {entry.accuracy_floor:.4f}")
        if self._before:
            now = _accuracy(archives.read_listed(self._entry(self._before.version)))
            if not accuracy >= now - MARGIN:
                raise RolloutError(
                    f"{who} scores {accuracy:.4f}, more than {MARGIN:g} less than the {now:.4f} of "
                    f"{self._before.version}, which is live"
                )
        return archive

    def _bring_up(self, archive: Archive, change: Callable[[], None]) -> None:
        """Register a version, see that it answers rightly, and make a change; unregistered again if a step fails."""
        version, who = archive.version, f"{self._model} {archive.version}"
        unregister = partial(self._management.unregister, self._model, version)
        with self._undo_by(unregister):
            if self._management.describe(self._model, version):
                self._report(f"unregistering {who}, left by a rollout that was broken off")
                unregister()
            self._report(f"registering {who}")
            self._management.register(archive.path.name)
            self._wait_for_workers(version)
            if archive.golden:
                self._report(f"asking {who} for {min(GOLDEN, len(archive.golden.inputs))} known answers")
                readiness.golden_check(self._given, archive, GOLDEN)
        # A change that fails late may have brought it requests.
        with self._undo_by(partial(self._retire, version)):
            change()

    def _wait_for_workers(self, version: str) -> None:
        who, timeout = f"{self._model} {version}", self._given.start_timeout
        loading = LoadingWorkers(self._given.log("workers.log"))
        deadline = time.monotonic() + timeout
        while True:
            running = self._management.describe(self._model, version)
            if running is None:
                raise RolloutError(f"TorchServe registered no {who}: the archive holds something else")
            if running.ready:
                return
            loading.check([running])
            if time.monotonic() > deadline:
                raise RolloutError(f"{who} was not ready after {timeout:g} s")
            self._report(f"loading {who}")
            time.sleep(polling.INTERVAL_S)

    def _switch(self, after: Live) -> None:
        """Make ``after`` the state, in TorchServe and in the file; both or neither."""
        self._report(f"switching {self._model} to {after.version}")
        undo = [partial(live.write, self._given.run, self._state)]
        if self._before:
            undo.append(partial(self._management.set_default, self._model, self._before.version))
        with self._undo_by(*undo):
            # The file first: without room for it no request goes to the new version at all.
            live.write(self._given.run, {**self._state, self._model: after})
            self._management.set_default(self._model, after.version)

    def _share(self, after: Live) -> None:
        """Make another share hold, in the gateway and in the file; both or neither."""
        state = {**self._state, self._model: after}
        with self._undo_by(partial(live.write, self._given.run, self._state), partial(self._split, self._state)):
            self._report("bringing the shares to the gateway")
            self._split(state)
            live.write(self._given.run, state)

    def _split(self, state: Mapping[str, Live]) -> None:
        """Have the gateway send each canary its share."""
        if not reload.apply(self._given, state):
            raise RolloutError("the gateway does not run; see: make status")

    @contextmanager
    def _undo_by(self, *steps: Callable[[], None]) -> Iterator[None]:
        """Take these steps if the body fails, or Ctrl-C ends it; a step that fails is no further failure."""
        try:
            yield
        except BaseException:
            for step in steps:
                with suppress(ServingError):
                    step()
            raise

    def _retire(self, version: str) -> None:
        """Unregister a version that gets no new requests, when it has been idle for the grace time."""
        who = f"{self._model} {version}"
        # The switch is done, so a break-off comes too late.
        with suppress(RolloutError):
            self._report(f"draining {who}")
        idle_since = time.monotonic()
        latest = idle_since + _LONGEST_DRAIN
        try:
            while time.monotonic() < min(idle_since + self._grace, latest):
                running = self._management.describe(self._model, version)
                if running is None:
                    return
                if running.queued:
                    idle_since = time.monotonic()
                time.sleep(polling.INTERVAL_S)
            self._management.unregister(self._model, version)
        except ServingError as error:
            raise RolloutError(f"done, but {who}, which nobody asks any more, still runs: {error}") from error


def _accuracy(archive: Archive) -> float:
    accuracy = archive.signature.scored.get("test_accuracy")
    if not isinstance(accuracy, float):
        raise RolloutError(f"the signature in {archive.path} gives no test_accuracy; train it again")
    return accuracy
